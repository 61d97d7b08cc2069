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
from .visual_tokens import instruction_positions, score_each_prompt

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

        def best_word(sample: int, positions: Tensor) -> Tensor:
            similarity = whitened_similarity(
                prompt, sample, positions, word_statistics, self.shrinkage
            )
            return similarity.amax(dim=1)  # [N]

        scores = score_each_prompt(prompt, best_word)
        return smoothed(scores, prompt) if self.smooth else scores


def whitened_similarity(
    prompt: MultimodalPrompt,
    sample: int,
    positions: Tensor,
    words: WordStatistics,
    shrinkage: float,
) -> Tensor:
    """Response of a prompt's visual tokens to a matched filter for each word of its instruction.

    With tokens x and their mean x̄, words t, the mean w̄ of the vocabulary and the inverse M of its
    regularised covariance: (x - x̄)ᵀ M (t - w̄) / sqrt((t - w̄)ᵀ M (t - w̄)).

    Args:
        prompt: B prompts.
        sample: Number of the prompt.
        positions: int64 [N], its visual tokens.
        words: The vocabulary.
        shrinkage: Share of the mean variance that is added to every variance.

    Returns:
        float32 [N, R], R words.
    """
    device = words.mean.device
    embeds = prompt.inputs_embeds[sample].to(device)  # [S, D]
    tokens = embeds[positions.to(device)].float()  # [N, D]
    asked = embeds[instruction_positions(prompt, sample).to(device)].float()  # [R, D]
    tokens, asked = tokens - tokens.mean(dim=0), asked - words.mean
    filters = words.precision_times(asked, shrinkage)  # [R, D]
    energy = (asked * filters).sum(dim=1).clamp(min=_TINY)  # [R]
    return tokens @ (filters / energy.sqrt()[:, None]).T


def alignment_gate(similarity: Tensor) -> Tensor:
    """How far one word stands out from the others, in [0, 1]; 0 if images and words do not match.

    The responses to the word that varies most over the image, compared with the median word: at
    1.4 times its standard deviation the gate opens, at 2.0 times it is open.

    Args:
        similarity: float32 [N, R], as `whitened_similarity` returns it.
    """
    deviation = similarity.std(dim=0, correction=0)  # [R]
    ratio = deviation.amax() / deviation.quantile(0.5).clamp(min=_TINY)
    return torch.clamp((ratio - 1.4) / 0.6, 0.0, 1.0)
