"""Attention with and without RoPE, and similarity to the best word where a gate allows it."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from ..word_statistics import WordStatistics
from .attention import instruction_attention
from .base import Scorer
from .smoothing import smoothed
from .visual_tokens import score_each_prompt, standardized
from .whitened_similarity import alignment_gate, whitened_similarity

_SMALLEST_SHARE = 1e-9


class GatedFusionScorer(Scorer):
    """Layer-0 attention with and without RoPE, plus the whitened similarity to the best word.

    With z for scores standardised over the visual tokens of a prompt, A and B for attention with
    and without RoPE, W for `whitened_similarity` and g for its gate, it is
    z(z(log A) + z(log B)) + text_weight g z(W), averaged half and half with its mean over the
    3 x 3 tokens around. Where no word stands out, because the projector does not map images close
    to words, g is 0 and attention decides alone.

    Args:
        text_weight: Weight of the similarity, at least 0.
        shrinkage: As for the scorer "whitened_similarity".

    Raises:
        TypeError: An option is not a number.
        ValueError: It is out of range.
    """

    needs = frozenset({"scoring_layer", "unrotated_layer", "word_statistics"})

    def __init__(self, text_weight: float = 2.0, shrinkage: float = 0.1) -> None:
        check_number("text_weight", text_weight, "[0, inf)")
        check_number("shrinkage", shrinkage, "(0, inf)")
        self.text_weight = text_weight
        self.shrinkage = shrinkage

    @override
    def score(
        self,
        prompt: MultimodalPrompt,
        *,
        scoring_layer: ScoringLayer,
        unrotated_layer: ScoringLayer,
        word_statistics: WordStatistics,
    ) -> Tensor:
        maps = [instruction_attention(layer) for layer in (scoring_layer, unrotated_layer)]

        def fused(sample: int, positions: Tensor) -> Tensor:
            rotated, unrotated = (
                standardized(own[sample, positions.to(own.device)].clamp(min=_SMALLEST_SHARE).log())
                for own in maps
            )  # [N] each
            similarity = whitened_similarity(
                prompt, sample, positions, word_statistics, self.shrinkage
            )  # [N, R]
            text = alignment_gate(similarity) * standardized(similarity.amax(dim=1))  # [N]
            return standardized(rotated + unrotated) + self.text_weight * text.to(rotated)

        return smoothed(score_each_prompt(prompt, fused), prompt)
