"""Chunked torch version: no attention map outlives a chunk of query rows."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["positive", "absolute", "signed", "attention"]

MEMORY_LIMIT = 32 * 2**20
"""Bytes that the scratch of a chunk of query rows takes by default."""


def relevance_step(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    *,
    query_positions: Tensor | None = None,
    key_mask: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = True,
    sliding_window: int | None = None,
    scaling: float | None = None,
    reduction: Reduction = "positive",
    normalize_rows: bool = False,
    residual: bool = True,
    lse: Tensor | None = None,
    chunk_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Tensor:
    """Propagate relevance through one attention layer, from its rows to its keys.

    r'[k] = r[k] + Σ_q r[q] · M[q, k], with M = mean over heads of f(A ⊙ ∂y/∂A). The map's gradient
    is ∂y/∂A[h, q, k] = ∂y/∂O[h, q] · V[h, k], so that query, key, value and the gradient of the
    attention output are enough. With f(x) = max(x, 0) this is one factor of equations 5 and 6 of
    Chefer et al. 2021, applied to one row of the relevance matrix.

    Args:
        r: float32 [T, B, S], relevance of every column for T targets.
        query: float [B, heads, Q, head_dim], after RoPE; Q = S unless `query_positions` is given.
        key: float [B, key_heads, S, head_dim]; heads is a multiple of key_heads.
        value: float [B, key_heads, S, value_dim].
        grad_output: float [T, B, heads, Q, value_dim], gradient of each target with respect to
            the attention output before its projection; not read by the reduction "attention".
        query_positions: int64 [Q], ascending, columns of the query rows; by default all S.
        key_mask: bool [B, S], False on keys that no row sees.
        mask: bool, broadcastable to [B, heads, Q, S], True where a row sees a key: everything that
            `causal`, `key_mask` and `sliding_window` do not say.
        causal: A row sees keys up to its own column only.
        sliding_window: Keys that a row sees at most, itself included; None for all.
        scaling: Factor on the attention logits; by default head_dim ** -0.5.
        reduction: f: "positive" keeps the positive part, "absolute" the magnitude, "signed" all;
            "attention" takes A itself, without gradient.
        normalize_rows: Divide each row of M by its sum; rows that sum to zero stay zero.
        residual: Add r itself, as in the formula.
        lse: float32 [B, heads, Q], logarithm of the sum of the exponentiated logits of each row;
            computed anew if not given.
        chunk_size: Query rows that are worked on at once; by default as many as `memory_limit`
            allows, at least one.
        memory_limit: Bytes that the scratch of a chunk may take.

    Returns:
        float32 [T, B, S].

    Raises:
        ValueError: Shapes do not fit, or the reduction is unknown.
    """
    _check_shapes(r, query, key, value, grad_output, reduction, query_positions)
    targets, batch, length = r.shape
    heads, rows, head_dim = query.shape[1:]
    key_heads = key.shape[1]
    group = heads // key_heads
    scaling = head_dim**-0.5 if scaling is None else scaling
    if query_positions is None:
        query_positions = torch.arange(rows, device=r.device)
    if chunk_size is None:
        # Logits, gradient and their product, in float32.
        chunk_size = max(1, memory_limit // (3 * 4 * batch * heads * length))
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


def _check_shapes(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    reduction: str,
    query_positions: Tensor | None,
) -> None:
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
