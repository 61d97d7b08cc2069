"""Attention of the instruction in decoder layer 0, without training."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_count
from ..kernels.instruction_attention import instruction_attention as attention_kernel
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer

_POSITIONS_PER_CHUNK = 512
"""Positions to normalise and project to keys at once. The normalised hidden states of all of them
would take more memory than their keys."""


class AttentionScorer(Scorer):
    """Mean attention of the instruction tokens to each token in decoder layer 0.

    This is A⁰ of arXiv 2506.01097, section 3, the input of the mapper, averaged over instruction
    tokens and heads. It needs no training and is the baseline of every learned scorer.

    Args:
        scoring_depth: Decoder layers that run on the whole prompt first, at least 0; the score is
            then the attention of a deeper layer.

    Raises:
        TypeError: `scoring_depth` is not a whole number.
        ValueError: It is below 0.
    """

    def __init__(self, scoring_depth: int = 0) -> None:
        check_count("scoring_depth", scoring_depth, at_least=0)
        self.scoring_depth = scoring_depth

    @override
    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        return instruction_attention(prompt, scoring_layer)


def instruction_attention(
    prompt: MultimodalPrompt, scoring_layer: ScoringLayer, *, per_head: bool = False
) -> Tensor:
    """Causal attention of the instruction tokens to every token, averaged over the instruction.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`.

    Raises:
        ValueError: A prompt has visual tokens, but no instruction token.
    """
    query, key, sample, position = project_instruction(prompt, scoring_layer)
    return attention_kernel(
        query,
        key,
        sample,
        position,
        prompt.attention_mask,
        scaling=scoring_layer.scaling,
        sliding_window=scoring_layer.sliding_window,
        per_head=per_head,
    )


def project_instruction(
    prompt: MultimodalPrompt, scoring_layer: ScoringLayer
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project only the instruction tokens to queries, and all tokens to keys.

    Returns:
        query: float [Q, heads, head_dim], the instruction tokens of all samples, after RoPE.
        key: float [B, S, key_heads, head_dim], after RoPE.
        sample: int64 [Q], sample of each query.
        position: int64 [Q], position of each query in its sample.
    """
    instruction = prompt.instruction_mask & prompt.attention_mask  # [B, S]
    unasked = prompt.visual_mask.any(dim=1) & ~instruction.any(dim=1)  # [B]
    if unasked.any():
        raise ValueError(
            f"Prompt {int(unasked.nonzero()[0])} has visual tokens, but no instruction token: mark "
            "at least one of its tokens in instruction_mask, or choose a scorer that does not read "
            "the instruction, such as 'uniform'."
        )
    embeds = prompt.inputs_embeds  # [B, S, D]
    cos, sin = scoring_layer.rotary(embeds, prompt.position_ids)  # [B, S, rotary] each
    norm = scoring_layer.input_norm
    # Keys of all tokens, in chunks of positions.
    chunks = zip(*(x.split(_POSITIONS_PER_CHUNK, dim=1) for x in (embeds, cos, sin)), strict=True)
    key = torch.cat([scoring_layer.keys(norm(chunk), *turn) for chunk, *turn in chunks], dim=1)
    # Queries of the instruction tokens.
    query = scoring_layer.queries(
        norm(embeds[instruction]), cos[instruction], sin[instruction]
    )  # [Q, heads, head_dim]
    sample, position = instruction.nonzero(as_tuple=True)  # [Q] each
    return query, key, sample, position
