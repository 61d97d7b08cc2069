"""What all compressed calls inside a `with` block did together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Any

from .report import CompressionReport, count_text, kept_text, times_text

# One for all totals, so that these can be copied and pickled.
_ADDING = Lock()


@dataclass
class CompressionTotals:
    """Sums over compressed calls; it keeps numbers only, so a long run holds no tensors.

    Attributes:
        calls: Compressed calls.
        samples: Prompts of these calls.
        visual_tokens_before: Visual tokens of the caller's prompts.
        visual_tokens_after: Visual tokens that the language model saw.
        vision_ms: Milliseconds of the vision part.
        scoring_ms: Milliseconds of the scorer.
        rewriting_ms: Milliseconds of selection and rewrite.
    """

    calls: int = 0
    samples: int = 0
    visual_tokens_before: int = 0
    visual_tokens_after: int = 0
    vision_ms: float = 0.0
    scoring_ms: float = 0.0
    rewriting_ms: float = 0.0

    def add(self, report: CompressionReport) -> None:
        """Add one call; threads may do so at the same time."""
        before, after = report.visual_tokens_before, report.visual_tokens_after
        with _ADDING:
            self.calls += 1
            self.samples += len(report.samples)
            self.visual_tokens_before += before
            self.visual_tokens_after += after
            self.vision_ms += report.vision_ms
            self.scoring_ms += report.scoring_ms
            self.rewriting_ms += report.rewriting_ms

    def summary(self) -> str:
        """One line for logs: calls, samples, tokens kept and times."""
        return (
            f"{count_text(self.calls, 'call')}, {count_text(self.samples, 'sample')}, "
            f"{kept_text(self.visual_tokens_before, self.visual_tokens_after)}, "
            f"{times_text(self.vision_ms, self.scoring_ms, self.rewriting_ms)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All attributes by name as JSON types, times rounded to a microsecond."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(self).items()
        }


# As the switch of `disabled()`: it belongs to a thread or an asyncio task.
_RECORDED: ContextVar[tuple[tuple[object, CompressionTotals], ...]] = ContextVar(
    "recorded", default=()
)


@contextmanager
def recording(owner: object) -> Iterator[CompressionTotals]:
    """Count the calls of `owner` inside the `with` block."""
    totals = CompressionTotals()
    token = _RECORDED.set((*_RECORDED.get(), (owner, totals)))
    try:
        yield totals
    finally:
        _RECORDED.reset(token)


def count_call(owner: object, report: CompressionReport) -> None:
    """Add a call of `owner` to all totals of this thread or asyncio task."""
    for recorded, totals in _RECORDED.get():
        if recorded is owner:
            totals.add(report)
