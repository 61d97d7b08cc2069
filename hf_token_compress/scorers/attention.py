"""Attention of the instruction in decoder layer 0, without training."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..checks import check_count
from ..kernels.instruction_attention import instruction_attention as attention_kernel
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer


class AttentionScorer(Scorer):
    """Mean attention of the instruction tokens to each token in decoder layer 0.

    This is A⁰ of arXiv 2506.01097, the input of the mapper, averaged over instruction
    tokens and heads. It needs no training and is the baseline of every learned scorer.

    Args:
        scoring_depth: Decoder layers that run on the whole prompt first, at least 0; the score is
            then the attention of a deeper layer.

    Raises:
        TypeError: `scoring_depth` is not a whole number.
        ValueError: It is below 0.
    """

    needs = frozenset({"scoring_layer"})

    def __init__(self, scoring_depth: int = 0) -> None:
        check_count("scoring_depth", scoring_depth, at_least=0)
        self.scoring_depth = scoring_depth

    @override
    def score(self, prompt: MultimodalPrompt, *, scoring_layer: ScoringLayer) -> Tensor:
        return instruction_attention(scoring_layer)


def instruction_attention(scoring_layer: ScoringLayer, *, per_head: bool = False) -> Tensor:
    """Attention of the instruction tokens to every token, averaged over the instruction.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`.
    """
    return attention_kernel(
        scoring_layer.query,
        scoring_layer.key,
        scoring_layer.sample,
        scoring_layer.position,
        scoring_layer.key_mask,
        scaling=scoring_layer.scaling,
        sliding_window=scoring_layer.sliding_window,
        mask=scoring_layer.mask,
        softcap=scoring_layer.softcap,
        sinks=scoring_layer.sinks,
        per_head=per_head,
        query_counts=scoring_layer.query_counts,
    )
