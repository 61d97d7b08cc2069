"""Attention with and without RoPE, and similarity to the best word where a gate allows it."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from ..word_statistics import WordStatistics
from .attention import instruction_attention
from .base import Scorer
from .smoothing import smoothed
from .visual_tokens import visual_batches
from .whitened_similarity import alignment_gate, best_word, whitened_similarity

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
        embeds = prompt.inputs_embeds.flatten(0, 1)  # [B * S, D]
        layers = (scoring_layer, unrotated_layer)
        maps = torch.stack([instruction_attention(layer) for layer in layers])  # [2, B, S]
        maps = maps.to(embeds.device).clamp(min=_SMALLEST_SHARE).log().flatten(1)  # [2, B * S]
        scores = torch.zeros_like(maps[0])  # [B * S]
        for batch in visual_batches(prompt, embeds.device):
            rotated, unrotated = batch.standardized(maps[:, batch.places])  # [P, N] each
            similarity = whitened_similarity(embeds, batch, word_statistics, self.shrinkage)
            best = best_word(similarity, batch).to(scores)  # [P, N]
            text = alignment_gate(similarity, batch).to(scores) * batch.standardized(best)
            fused = batch.standardized(rotated + unrotated) + self.text_weight * text
            batch.add_to(scores, fused)
        return smoothed(scores.view(prompt.visual_mask.shape), prompt)
