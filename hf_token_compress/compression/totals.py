"""What all compressed calls inside a `with` block did together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .report import CompressionReport, count_text, kept_text, times_text
from .stopwatch import CallTimes

# One for all totals, so that these can be copied and pickled.
_ADDING = Lock()
_TIMES = ("vision_ms", "scoring_ms", "rewriting_ms")


@dataclass(eq=False)
class CompressionTotals:
    """Sums over compressed calls; it holds no tensors, however long the run.

    Times are read when somebody asks for them, which waits until the device has finished the calls.

    Attributes:
        calls: Compressed calls.
        samples: Prompts of these calls.
        visual_tokens_before: Visual tokens of the caller's prompts.
        visual_tokens_after: Visual tokens that the language model saw.
    """

    calls: int = 0
    samples: int = 0
    visual_tokens_before: int = 0
    visual_tokens_after: int = 0
    _read: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_TIMES, 0.0), repr=False)
    _unread: list[CallTimes] = field(default_factory=list, repr=False)

    @property
    def vision_ms(self) -> float:
        """Milliseconds of the vision part."""
        return self._times()["vision_ms"]

    @property
    def scoring_ms(self) -> float:
        """Milliseconds of the scorer."""
        return self._times()["scoring_ms"]

    @property
    def rewriting_ms(self) -> float:
        """Milliseconds of selection and rewrite."""
        return self._times()["rewriting_ms"]

    def add(self, report: CompressionReport) -> None:
        """Add one call; threads may do so at the same time."""
        before, after = report.visual_tokens_before, report.visual_tokens_after
        with _ADDING:
            self.calls += 1
            self.samples += report.batch_size
            self.visual_tokens_before += before
            self.visual_tokens_after += after
            self._unread.append(report.times)
            # Calls that are done are read without waiting, so that a long run holds few of them.
            while self._unread and self._unread[0].is_done:
                self._read_first()

    def _times(self) -> dict[str, float]:
        """Milliseconds by name, of all calls."""
        with _ADDING:
            while self._unread:
                self._read_first()
            return self._read

    def _read_first(self) -> None:
        times = self._unread.pop(0)
        for name in _TIMES:
            self._read[name] += getattr(times, name)

    def summary(self) -> str:
        """One line for logs: calls, samples, tokens kept and times."""
        return (
            f"{count_text(self.calls, 'call')}, {count_text(self.samples, 'sample')}, "
            f"{kept_text(self.visual_tokens_before, self.visual_tokens_after)}, "
            f"{times_text(self.vision_ms, self.scoring_ms, self.rewriting_ms)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All counts and times by name as JSON types, times rounded to a microsecond."""
        counts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return counts | {name: round(value, 3) for name, value in self._times().items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompressionTotals) and self.to_dict() == other.to_dict()


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
