"""Chunked torch version: no attention map outlives a chunk of query rows."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["positive", "absolute", "signed", "attention"]

MEMORY_LIMIT = 32 * 2**20
"""Bytes of scratch that a chunk of query rows may take by default."""


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
    normalize_rows: bool,
    residual: bool,
    lse: Tensor | None,
    chunk_size: int | None,
) -> Tensor:
    """As the function of that name in the package, whose caller has checked the arguments."""
    targets, batch, length = r.shape
    heads, rows, _ = query.shape[1:]
    key_heads = key.shape[1]
    group = heads // key_heads
    if query_positions is None:
        query_positions = torch.arange(rows, device=r.device)
    if chunk_size is None:
        # Logits, gradient and their product, in float32.
        chunk_size = max(1, MEMORY_LIMIT // (3 * 4 * batch * heads * length))
    # One key head serves a group of query heads: [B, key_heads, 1, dim, S].
    keys = key.float().unsqueeze(2).transpose(-1, -2)
    values = value.float().unsqueeze(2).transpose(-1, -2)
    weights = r.index_select(-1, query_positions)  # [T, B, Q]
    folded = torch.zeros_like(r)
    for start in range(0, rows, chunk_size):
        chunk = slice(start, min(start + chunk_size, rows))
        weight = weights[..., chunk]  # [T, B, C]
        if not weight.any():
            continue
        position = query_positions[chunk]
        end = int(position[-1]) + 1 if causal else length
        begin = max(0, int(position[0]) + 1 - sliding_window) if causal and sliding_window else 0
        seen = slice(begin, end)
        visible = _visible(position, seen, key_mask, causal, sliding_window)  # [B | 1, 1, 1, C, K]
        if mask is not None:
            visible = visible & _grouped_mask(mask, key_heads, group)[..., chunk, seen]
        attention = _attention(
            query[:, :, chunk].unflatten(1, (key_heads, group)).float() * scaling,
            keys[..., seen],
            visible,
            None if lse is None else lse[:, :, chunk].unflatten(1, (key_heads, group)),
        )  # [B, key_heads, group, C, K]
        for target in range(targets):
            if reduction == "attention":
                edges = attention
            else:
                assert grad_output is not None
                gradient = grad_output[target, :, :, chunk].unflatten(1, (key_heads, group))
                edges = _reduced(gradient.float() @ values[..., seen], attention, reduction)
            # Padding may hold anything, NaN too: overwrite what came of it.
            edges = edges.masked_fill(~visible, 0.0).flatten(1, 2)  # [B, heads, C, K]
            share = weight[target] / heads  # [B, C]
            if normalize_rows:
                total = edges.sum(dim=(1, 3)) / heads
                share = torch.where(total != 0, share / total, 0.0)
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
    """Which keys of the slice each row sees: bool [B or 1, 1, 1, C, K]."""
    columns = torch.arange(seen.start, seen.stop, device=position.device)
    offset = position[:, None] - columns  # [C, K]
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
    """The tensors of a step belong together.

    Raises:
        ValueError: They do not, or the reduction is unknown.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(
            f"reduction must be one of {', '.join(get_args(Reduction))}, but it is {reduction!r}."
        )
    targets, batch, length = r.shape
    heads, rows, head_dim = query.shape[1:]
    key_heads = key.shape[1]
    if heads % key_heads != 0 or key.shape != (batch, key_heads, length, head_dim):
        raise ValueError(
            f"query {list(query.shape)} and relevance {list(r.shape)} do not fit key "
            f"{list(key.shape)}: the batch, length and head size must be equal and the query heads "
            "a multiple of the key heads."
        )
    if value.shape[:3] != key.shape[:3]:
        raise ValueError(f"value {list(value.shape)} does not fit key {list(key.shape)}.")
    expected_rows = length if query_positions is None else len(query_positions)
    if query.shape[0] != batch or rows != expected_rows:
        raise ValueError(
            f"query must have {expected_rows} rows for each of {batch} samples, but is "
            f"{list(query.shape)}."
        )
    wanted = (targets, batch, heads, rows, value.shape[-1])
    if reduction != "attention" and (grad_output is None or grad_output.shape != wanted):
        given = None if grad_output is None else list(grad_output.shape)
        raise ValueError(f"grad_output must be {list(wanted)}, but is {given}.")
