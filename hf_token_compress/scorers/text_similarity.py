"""Similarity of visual tokens to the words of the instruction."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from .base import Scorer
from .visual_tokens import instruction_positions, score_each_prompt, unit_embeddings


class TextSimilarityScorer(Scorer):
    """Mean cosine of each visual token to the instruction, as embeddings before layer 0.

    This is the relevance of CDPruner (arXiv 2506.10967, section 3.2), with the language model's own
    embeddings. It presumes a projector that maps images close to words, and long prompts blur it.
    """

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        prompt.check_instruction()
        return score_each_prompt(
            prompt, lambda sample, positions: text_similarity(prompt, sample, positions)
        )


def text_similarity(prompt: MultimodalPrompt, sample: int, positions: Tensor) -> Tensor:
    """Mean cosine of a prompt's tokens, int64 [N], to its instruction, float32 [N]."""
    words = unit_embeddings(prompt, sample, instruction_positions(prompt, sample))  # [R, D]
    return unit_embeddings(prompt, sample, positions) @ words.mean(dim=0)
