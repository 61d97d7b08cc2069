"""Chunked torch version: it holds the attention map of one chunk of queries at a time."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["positive", "absolute", "signed", "attention"]

MEMORY_LIMIT = 32 * 2**20
"""Bytes of scratch memory for a chunk of queries by default."""


def relevance_step(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    *,
    query_positions: Tensor | None,
    key_mask: Tensor | None,
    mask: Tensor | None,
    causal: bool,
    sliding_window: int | None,
    scaling: float,
    reduction: Reduction,
    normalize_per_query: bool,
    residual: bool,
    lse: Tensor | None,
    chunk_size: int | None,
) -> Tensor:
    """The torch version of the package's function, which has checked the arguments."""
    targets, batch, length = r.shape
    heads, queries, _ = query.shape[1:]
    key_heads = key.shape[1]
    group = heads // key_heads
    if query_positions is None:
        query_positions = torch.arange(queries, device=r.device)
    if chunk_size is None:
        # Logits, gradient and their product, in float32.
        chunk_size = max(1, MEMORY_LIMIT // (3 * 4 * batch * heads * length))
    # One key head serves a group of query heads.
    keys = key.float().unsqueeze(2).transpose(-1, -2)  # [B, key_heads, 1, head_dim, S]
    values = value.float().unsqueeze(2).transpose(-1, -2)  # [B, key_heads, 1, value_dim, S]
    weights = r.index_select(-1, query_positions)  # [T, B, Q]
    folded = torch.zeros_like(r)
    for start in range(0, queries, chunk_size):
        chunk = slice(start, min(start + chunk_size, queries))
        weight = weights[..., chunk]  # [T, B, C]
        if not weight.any():
            continue
        # The keys that some query of the chunk can see.
        position = query_positions[chunk]  # [C]
        end = int(position[-1]) + 1 if causal else length
        begin = max(0, int(position[0]) + 1 - sliding_window) if causal and sliding_window else 0
        seen = slice(begin, end)
        visible = _visible(position, seen, key_mask, causal, sliding_window)  # [B | 1, 1, 1, C, K]
        if mask is not None:
            visible = visible & _grouped_mask(mask, key_heads, group)[..., chunk, seen]
        # The attention map of the chunk.
        attention = _attention(
            query[:, :, chunk].unflatten(1, (key_heads, group)).float() * scaling,
            keys[..., seen],
            visible,
            None if lse is None else lse[:, :, chunk].unflatten(1, (key_heads, group)),
        )  # [B, key_heads, group, C, K]
        # Fold f(A ⊙ ∂y/∂A) into the relevance of each target.
        for target in range(targets):
            if reduction == "attention":
                edges = attention
            else:
                assert grad_output is not None
                gradient = grad_output[target, :, :, chunk].unflatten(1, (key_heads, group))
                edges = _reduced(gradient.float() @ values[..., seen], attention, reduction)
            # Padding may hold NaN, so its edges are overwritten.
            edges = edges.masked_fill(~visible, 0.0).flatten(1, 2)  # [B, heads, C, K]
            share = weight[target] / heads  # [B, C]
            if normalize_per_query:
                total = edges.sum(dim=(1, 3)) / heads
                share = torch.where(total != 0, share / total, 0.0)
            # [B, 1, heads * C]
            share = share[:, None].expand(batch, heads, -1).reshape(batch, 1, -1)
            folded[target, :, seen] += (share @ edges.flatten(1, 2)).squeeze(1)  # [B, K]
    return r + folded if residual else folded


def _attention(query: Tensor, keys: Tensor, visible: Tensor, lse: Tensor | None) -> Tensor:
    logits = (query @ keys).masked_fill_(~visible, float("-inf"))
    if lse is None:
        return logits.softmax(dim=-1)
    return logits.sub_(lse.unsqueeze(-1)).exp_()


def _reduced(gradient: Tensor, attention: Tensor, reduction: Reduction) -> Tensor:
    edges = gradient.mul_(attention)
    if reduction == "positive":
        return edges.clamp_(min=0.0)
    return edges.abs_() if reduction == "absolute" else edges


def _visible(
    position: Tensor,
    seen: slice,
    key_mask: Tensor | None,
    causal: bool,
    sliding_window: int | None,
) -> Tensor:
    """Which keys of the slice each query sees: bool [B or 1, 1, 1, C, K]."""
    key_positions = torch.arange(seen.start, seen.stop, device=position.device)  # [K]
    offset = position[:, None] - key_positions  # [C, K]
    visible = offset >= 0 if causal else torch.ones_like(offset, dtype=torch.bool)
    if sliding_window is not None:
        visible &= offset < sliding_window
    if key_mask is None:
        return visible[None, None, None]
    return visible & key_mask[:, None, None, None, seen]


def _grouped_mask(mask: Tensor, key_heads: int, group: int) -> Tensor:
    """Bool [B or 1, heads or 1, Q, S] → [B or 1, key_heads or 1, group or 1, Q, S]."""
    mask = mask.view(*[1] * (4 - mask.ndim), *mask.shape)
    return mask.unsqueeze(1) if mask.shape[1] == 1 else mask.unflatten(1, (key_heads, group))


def check_shapes(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    reduction: str,
    query_positions: Tensor | None,
) -> None:
    """Check that the shapes of a step match.

    Raises:
        ValueError: A shape does not match, or the reduction is unknown.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(
            f"reduction must be one of {', '.join(get_args(Reduction))}, but it is {reduction!r}."
        )
    targets, batch, length = r.shape
    heads, queries, head_dim = query.shape[1:]
    key_heads = key.shape[1]
    if heads % key_heads != 0 or key.shape != (batch, key_heads, length, head_dim):
        raise ValueError(
            f"query {list(query.shape)} and relevance {list(r.shape)} do not fit key "
            f"{list(key.shape)}: the batch, length and head size must be equal and the query heads "
            "a multiple of the key heads."
        )
    if value.shape[:3] != key.shape[:3]:
        raise ValueError(f"value {list(value.shape)} does not fit key {list(key.shape)}.")
    expected = length if query_positions is None else len(query_positions)
    if query.shape[0] != batch or queries != expected:
        raise ValueError(
            f"query must have {expected} positions for each of {batch} samples, but is "
            f"{list(query.shape)}."
        )
    wanted = (targets, batch, heads, queries, value.shape[-1])
    if reduction != "attention" and (grad_output is None or grad_output.shape != wanted):
        given = None if grad_output is None else list(grad_output.shape)
        raise ValueError(f"grad_output must be {list(wanted)}, but is {given}.")
