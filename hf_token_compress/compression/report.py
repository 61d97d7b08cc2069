"""What a compressed call did: which tokens it kept, their scores, and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from torch import Tensor

from ..config import TokenCompressionConfig
from ..prompt import VisualSpan
from .stopwatch import CallTimes

# One for all, so that reports can be copied and pickled.
_MAKING = Lock()


@dataclass(frozen=True, repr=False)
class SampleReport:
    """What happened to one prompt, or to the new tokens of a prompt that continues a cache.

    Its tensors are on the CPU.

    Attributes:
        kept_indices: int64 [K], positions of all kept tokens, text included, in the caller's
            sequence.
        visual_indices: int64 [N], positions of all visual tokens in the caller's sequence.
        kept_visual: bool [N], which visual tokens were kept.
        scores: float32 [N], the scorer's scores; None if no token had to be dropped.
        visuals: Its images and videos, with their positions and grids.
        retention_ratio: Share of the visual tokens that was asked for.
    """

    kept_indices: Tensor
    visual_indices: Tensor
    kept_visual: Tensor
    scores: Tensor | None
    visuals: tuple[VisualSpan, ...]
    retention_ratio: float

    @property
    def visual_tokens_before(self) -> int:
        """Visual tokens of the caller's prompt."""
        return len(self.kept_visual)

    @property
    def visual_tokens_after(self) -> int:
        """Visual tokens that the language model sees."""
        return int(self.kept_visual.sum())

    @property
    def prompt_tokens_before(self) -> int:
        """Tokens of the caller's prompt, text included, without padding."""
        return self.prompt_tokens_after + self.visual_tokens_before - self.visual_tokens_after

    @property
    def prompt_tokens_after(self) -> int:
        """Tokens that the language model sees, text included, without padding."""
        return len(self.kept_indices)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON types; positions, scores and grids are left out.

        Returns:
            The retention ratio, visual and prompt tokens before and after, and in "visuals", for
            each image or video in order of appearance, its modality and its visual tokens before
            and after.
        """
        counts = [len(span.positions) for span in self.visuals]
        kept = self.kept_visual.cpu().split(counts)  # [visual tokens] of each image or video
        return {
            "retention_ratio": self.retention_ratio,
            "visual_tokens_before": self.visual_tokens_before,
            "visual_tokens_after": self.visual_tokens_after,
            "prompt_tokens_before": self.prompt_tokens_before,
            "prompt_tokens_after": self.prompt_tokens_after,
            "visuals": [
                {
                    "modality": span.modality,
                    "visual_tokens_before": len(own),
                    "visual_tokens_after": int(own.sum()),
                }
                for span, own in zip(self.visuals, kept, strict=True)
            ],
        }

    def __repr__(self) -> str:
        return f"SampleReport({kept_text(self.visual_tokens_before, self.visual_tokens_after)})"


class CompressionReport:
    """What a compressed call did.

    The counts are known. The samples and the times are read from the device when somebody asks for
    them. On an accelerator, this is also when scores are found not to be finite: `samples` then
    raises `ValueError`.

    Attributes:
        config: The setting of the call. Where the call has a ratio for each sample, these are in
            `samples`.
        batch_size: Prompts of the batch.
        visual_tokens_before: Visual tokens of all prompts of the caller.
        visual_tokens_after: Visual tokens that the language model sees, of all prompts.
        times: How long the parts of the call took.
    """

    def __init__(
        self,
        config: TokenCompressionConfig,
        visual_tokens: Sequence[tuple[int, int]],
        times: CallTimes,
        make_samples: Callable[[], tuple[SampleReport, ...]],
        *,
        is_checked: bool,
    ) -> None:
        self.config = config
        self.batch_size = len(visual_tokens)
        self.visual_tokens_before = sum(before for before, _ in visual_tokens)
        self.visual_tokens_after = sum(after for _, after in visual_tokens)
        self.times = times
        self._is_checked = is_checked
        self._samples: tuple[SampleReport, ...] = ()
        self._make_samples: Callable[[], tuple[SampleReport, ...]] | None = make_samples

    @property
    def samples(self) -> tuple[SampleReport, ...]:
        """One report per prompt of the batch."""
        with _MAKING:
            if self._make_samples is not None:
                self._samples = self._make_samples()
                # It holds tensors of the device.
                self._make_samples = None
            return self._samples

    def check_scores(self) -> None:
        """Raise `ValueError` unless scores are finite; waits for those that are not yet checked."""
        if not self._is_checked:
            self._is_checked = bool(self.samples)

    @property
    def vision_ms(self) -> float:
        """Milliseconds of the vision part (zero if the caller passed features)."""
        return self.times.vision_ms

    @property
    def scoring_ms(self) -> float:
        """Milliseconds of the scorer."""
        return self.times.scoring_ms

    @property
    def rewriting_ms(self) -> float:
        """Milliseconds of selection and rewrite."""
        return self.times.rewriting_ms

    @property
    def scorer(self) -> str:
        """Name of the scorer. It did not run if no prompt has scores."""
        return self.config.scorer_name

    def summary(self) -> str:
        """One line for logs: tokens kept, samples, scorer and times."""
        return (
            f"{kept_text(self.visual_tokens_before, self.visual_tokens_after)}, "
            f"{count_text(self.batch_size, 'sample')}, scorer {self.scorer}, "
            f"{times_text(self.vision_ms, self.scoring_ms, self.rewriting_ms)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types; positions, scores and grids are left out.

        Returns:
            "scorer", "config" (every setting of the call), visual tokens before and after,
            "vision_ms", "scoring_ms" and "rewriting_ms", rounded to a microsecond, and "samples",
            what `SampleReport.to_dict` returns for each prompt.
        """
        return {
            "scorer": self.scorer,
            "config": self.config.to_dict(),
            "visual_tokens_before": self.visual_tokens_before,
            "visual_tokens_after": self.visual_tokens_after,
            "vision_ms": round(self.vision_ms, 3),
            "scoring_ms": round(self.scoring_ms, 3),
            "rewriting_ms": round(self.rewriting_ms, 3),
            "samples": [sample.to_dict() for sample in self.samples],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_samples": self.samples, "_make_samples": None}

    def __repr__(self) -> str:
        return f"CompressionReport({self.summary()})"


def kept_text(before: int, after: int) -> str:
    """How many visual tokens were kept, in words."""
    if before == 0:
        return "no visual tokens"
    return f"{after} of {before} visual tokens kept ({after / before:.0%})"


def count_text(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times_text(vision_ms: float, scoring_ms: float, rewriting_ms: float) -> str:
    """The milliseconds of each part, in words."""
    return (
        f"vision {vision_ms:.1f} ms, scoring {scoring_ms:.1f} ms, rewriting {rewriting_ms:.1f} ms"
    )
