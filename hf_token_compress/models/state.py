"""What a compressed model carries: its setting, and what the last call did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from ..config import TokenCompressionConfig
from ..prompt import VisualSpan
from ..scorers import Scorer, build_scorer


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


class TokenCompression:
    """The compression of one model, found as `model.token_compression`.

    Attributes:
        config: The setting.
        last: Report of the last call that had images or videos; None before the first.
    """

    def __init__(self, config: TokenCompressionConfig) -> None:
        self.config = config
        options = dict(config.scorer_options)
        if config.scorer_name == "mapper":
            options.update(mapper=config.mapper, revision=config.mapper_revision)
        self.scorer: Scorer = build_scorer(config.scorer_name, options)
        self.last: CompressionReport | None = None
        self._disabled = 0

    @property
    def enabled(self) -> bool:
        """False inside `disabled()`."""
        return self._disabled == 0

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the stock model within the `with` block; may be nested."""
        self._disabled += 1
        try:
            yield
        finally:
            self._disabled -= 1

    def __repr__(self) -> str:
        status = "" if self.enabled else ", disabled"
        return f"TokenCompression({self.config}{status})"
