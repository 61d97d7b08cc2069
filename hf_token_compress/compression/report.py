"""What a compressed call did: which tokens it kept, their scores, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..prompt import VisualSpan


@dataclass(frozen=True)
class SampleReport:
    """What happened to one prompt, or to the new tokens of a prompt that continues a cache.

    Attributes:
        kept_indices: int64 [K], positions of all kept tokens, text included, in the caller's
            sequence.
        visual_indices: int64 [N], positions of all visual tokens in the caller's sequence.
        kept_visual: bool [N], which visual tokens were kept.
        scores: float32 [N], the scorer's scores; None if no token had to be dropped.
        visuals: Its images and videos, with their positions and grids.
    """

    kept_indices: Tensor
    visual_indices: Tensor
    kept_visual: Tensor
    scores: Tensor | None
    visuals: tuple[VisualSpan, ...]

    @property
    def visual_tokens_before(self) -> int:
        """Visual tokens of the caller's prompt."""
        return len(self.kept_visual)

    @property
    def visual_tokens_after(self) -> int:
        """Visual tokens that the language model sees."""
        return int(self.kept_visual.sum())


@dataclass(frozen=True)
class CompressionReport:
    """What the last compressed call did.

    Attributes:
        samples: One report per prompt of the batch.
        vision_ms: Milliseconds of the vision part (zero if the caller passed features).
        scoring_ms: Milliseconds of the scorer.
        rewriting_ms: Milliseconds of selection and rewrite.
    """

    samples: tuple[SampleReport, ...]
    vision_ms: float
    scoring_ms: float
    rewriting_ms: float
