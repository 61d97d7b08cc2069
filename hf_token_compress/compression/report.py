"""What a compressed call did: which tokens were kept, with which scores, in what time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..prompt import VisualSpan


@dataclass(frozen=True)
class SampleReport:
    """What happened to one prompt.

    Attributes:
        kept_indices: int64 [K], columns of all tokens that were kept, text too, in the caller's
            sequence.
        visual_indices: int64 [N], columns of all its visual tokens in the caller's sequence.
        kept_visual: bool [N], which of them were kept.
        scores: float32 [N], the scorer's scores; None where nothing had to be scored.
        visuals: Its images and videos, with their columns and grids.
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
        vision_ms: Milliseconds of the vision part (zero where features were given).
        scoring_ms: Milliseconds of the scorer.
        rewriting_ms: Milliseconds of selection and rewrite.
    """

    samples: tuple[SampleReport, ...]
    vision_ms: float
    scoring_ms: float
    rewriting_ms: float
