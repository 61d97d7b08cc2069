"""Layer-0 attention itself, untrained: the control for every learned scorer."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_count
from ..kernels.instruction_attention import instruction_attention as attention_kernel
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer

_COLUMNS_AT_ONCE = 512
"""Columns that are normalised and projected to keys at once: normalised rows are not kept, which
would take more memory than all that is made of them."""


class AttentionScorer(Scorer):
    """Mean attention of the instruction rows to each token in decoder layer 0.

    This is the mapper's input in arXiv 2506.01097 (A⁰ between instruction and visual tokens, its
    mean over instruction rows and heads), used as the score without any training.

    Args:
        scoring_depth: Decoder layers that run on the whole prompt first, so that the attention of a
            deeper layer is the score; each costs one layer of the uncompressed prefill.

    Raises:
        TypeError: `scoring_depth` is no whole number.
        ValueError: It is below 0.
    """

    def __init__(self, scoring_depth: int = 0) -> None:
        check_count("scoring_depth", scoring_depth, at_least=0)
        self._scoring_depth = scoring_depth

    @property
    @override
    def scoring_depth(self) -> int:
        return self._scoring_depth

    @override
    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        return instruction_attention(prompt, scoring_layer)


def instruction_attention(
    prompt: MultimodalPrompt, scoring_layer: ScoringLayer, *, per_head: bool = False
) -> Tensor:
    """Attention of the instruction rows in decoder layer 0, mean over the rows.

    Only instruction rows are projected to queries; keys are projected for all rows. Each row
    attends to the keys up to its own column, padding excluded.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`.

    Raises:
        ValueError: A prompt has visual tokens, but no instruction row.
    """
    query, key, sample, column = project_instruction(prompt, scoring_layer)
    return attention_kernel(
        query,
        key,
        sample,
        column,
        prompt.attention_mask,
        scaling=scoring_layer.scaling,
        sliding_window=scoring_layer.sliding_window,
        per_head=per_head,
    )


def project_instruction(
    prompt: MultimodalPrompt, scoring_layer: ScoringLayer
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of the instruction rows, and keys of all rows.

    Returns:
        query: float [R, heads, head_dim], the instruction rows of all samples, after RoPE.
        key: float [B, S, key_heads, head_dim], after RoPE.
        sample: int64 [R], sample of each query row.
        column: int64 [R], column of each query row.

    Raises:
        ValueError: A prompt has visual tokens, but no instruction row.
    """
    rows = prompt.instruction_mask & prompt.attention_mask
    unasked = (prompt.visual_mask.any(dim=1) & ~rows.any(dim=1)).nonzero().flatten()
    if len(unasked):
        raise ValueError(
            f"Prompt {int(unasked[0])} has visual tokens, but no row that asks about them: mark at "
            "least one of its tokens, not padding, in instruction_mask, or choose a scorer that "
            "needs no question, such as 'uniform'."
        )
    sample, column = rows.nonzero(as_tuple=True)  # [R] each
    embeds = prompt.inputs_embeds  # [B, S, D]
    cos, sin = scoring_layer.rotary(embeds, prompt.position_ids)  # [B, S, rotary]
    parts = zip(*(x.split(_COLUMNS_AT_ONCE, dim=1) for x in (embeds, cos, sin)), strict=True)
    norm = scoring_layer.input_norm
    key = torch.cat([scoring_layer.keys(norm(part), *turn) for part, *turn in parts], dim=1)
    query = scoring_layer.queries(norm(embeds[rows]), cos[rows], sin[rows])  # [R, heads, head_dim]
    return query, key, sample, column
