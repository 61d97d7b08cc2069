"""Similarity to the one word of the instruction that stands out best from the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_number, check_type
from ..prompt import MultimodalPrompt
from ..word_statistics import WordStatistics
from .base import Scorer
from .smoothing import smoothed
from .visual_tokens import VisualBatch, visual_batches

_TINY = 1e-12


class WhitenedSimilarityScorer(Scorer):
    """Largest whitened similarity of each visual token to a word of the instruction.

    Each word is a matched filter with the vocabulary as background (Robey et al., 1992): what all
    words have in common, such as a few dominant dimensions, does not count. Unlike the mean cosine,
    it is not blurred by long prompts. It presumes a projector that maps images close to words.

    Args:
        shrinkage: Share of the mean variance of the vocabulary that is added to every variance.
        smooth: Average each token with the tokens around it on its grid.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: `shrinkage` is not above 0.
    """

    needs = frozenset({"word_statistics"})

    def __init__(self, shrinkage: float = 0.1, smooth: bool = True) -> None:
        check_number("shrinkage", shrinkage, "(0, inf)")
        check_type("smooth", smooth, bool)
        self.shrinkage = shrinkage
        self.smooth = smooth

    @override
    def score(self, prompt: MultimodalPrompt, *, word_statistics: WordStatistics) -> Tensor:
        prompt.check_instruction()
        embeds = prompt.inputs_embeds.flatten(0, 1)  # [B * S, D]
        scores = embeds.new_zeros(len(embeds), dtype=torch.float32)  # [B * S]
        for batch in visual_batches(prompt, embeds.device):
            similarity = whitened_similarity(embeds, batch, word_statistics, self.shrinkage)
            batch.add_to(scores, best_word(similarity, batch).to(scores))
        scores = scores.view(prompt.visual_mask.shape)
        return smoothed(scores, prompt) if self.smooth else scores


def whitened_similarity(
    embeds: Tensor, batch: VisualBatch, words: WordStatistics, shrinkage: float
) -> Tensor:
    """Response of the visual tokens of prompts to a matched filter for each word they ask.

    With tokens x and their mean x̄, words t, the mean w̄ of the vocabulary and the inverse M of its
    regularised covariance: (x - x̄)ᵀ M (t - w̄) / sqrt((t - w̄)ᵀ M (t - w̄)).

    Args:
        embeds: float [B * S, D], the tokens of all prompts as the decoder gets them.
        batch: Which of them are visual tokens and words of P prompts.
        words: The vocabulary.
        shrinkage: Share of the mean variance that is added to every variance.

    Returns:
        float32 [P, N, R], R words; anything finite on padding.
    """
    device = words.mean.device
    tokens, asked = (
        embeds[index].to(device).float() for index in (batch.places, batch.words)
    )  # [P, N, D], [P, R, D]
    if batch.missing is None:
        centre = tokens.mean(dim=1, keepdim=True)  # [P, 1, D]
    else:
        total = tokens.masked_fill(batch.missing.to(device).unsqueeze(-1), 0.0).sum(dim=1)
        centre = (total / batch.lengths.to(device)).unsqueeze(1)  # [P, 1, D]
    tokens, asked = tokens - centre, asked - words.mean
    filters = words.precision_times(asked.flatten(0, 1), shrinkage).view_as(asked)  # [P, R, D]
    energy = (asked * filters).sum(dim=-1, keepdim=True).clamp(min=_TINY)  # [P, R, 1]
    return tokens @ (filters / energy.sqrt()).mT


def best_word(similarity: Tensor, batch: VisualBatch) -> Tensor:
    """The largest response of each token, [P, N, R] → [P, N]."""
    if batch.unasked is not None:
        similarity = similarity.masked_fill(
            batch.unasked.to(similarity.device).unsqueeze(1), -torch.inf
        )
    return similarity.amax(dim=-1)


def alignment_gate(similarity: Tensor, batch: VisualBatch) -> Tensor:
    """How far one word stands out from the others, in [0, 1]; 0 if images and words do not match.

    The responses to the word that varies most over the image, compared with the median word: at
    1.4 times its standard deviation the gate opens, at 2.0 times it is open.

    Args:
        similarity: float32 [P, N, R], as `whitened_similarity` returns it.
        batch: Which tokens and words there are.

    Returns:
        float32 [P, 1].
    """
    device = similarity.device
    if batch.missing is None:
        deviation = similarity.std(dim=1, correction=0)  # [P, R]
    else:
        missing, lengths = batch.missing.to(device).unsqueeze(-1), batch.lengths.to(device)
        mean = similarity.masked_fill(missing, 0.0).sum(dim=1) / lengths  # [P, R]
        squares = (similarity - mean.unsqueeze(1)).square().masked_fill(missing, 0.0)
        deviation = (squares.sum(dim=1) / lengths).sqrt()  # [P, R]
    if batch.unasked is not None:
        deviation = deviation.masked_fill(batch.unasked.to(device), torch.inf)
    ordered = deviation.sort(dim=-1).values.gather(1, batch.ranks.to(device))  # [P, 3]
    low, high, largest = ordered.split(1, dim=1)  # [P, 1] each
    ratio = largest / torch.lerp(low, high, 0.5).clamp(min=_TINY)
    return torch.clamp((ratio - 1.4) / 0.6, 0.0, 1.0)
