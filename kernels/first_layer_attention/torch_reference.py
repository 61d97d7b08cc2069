"""Chunked torch version: no rows × keys matrix outlives a chunk of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def first_layer_attention(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    per_head: bool = False,
    chunk_size: int = 64,
) -> Tensor:
    """Mean over the query rows of a sample of their causal attention to every key.

    Args:
        query: float [R, heads, head_dim], the instruction rows of all samples, after RoPE.
        key: float [B, S, key_heads, head_dim], all rows, after RoPE; heads is a multiple of
            key_heads (grouped-query attention).
        query_sample: int64 [R], sample of each query row.
        query_position: int64 [R], column of each query row; it sees keys up to that column.
        key_mask: bool [B, S], False on padding.
        scaling: Factor on the logits; by default head_dim ** -0.5.
        sliding_window: Keys that a row sees at most, itself included; None for all.
        per_head: Keep the heads apart rather than taking their mean.
        chunk_size: Query rows that are worked on at once.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`. Samples without query rows are zero.

    Raises:
        ValueError: Shapes do not fit.
    """
    rows, heads, head_dim = query.shape
    samples, length, key_heads, key_dim = key.shape
    if key_dim != head_dim or heads % key_heads != 0:
        raise ValueError(
            f"query heads {heads} x {head_dim} do not fit key heads {key_heads} x {key_dim}: the "
            "head sizes must be equal and the query heads a multiple of the key heads."
        )
    if query_sample.shape != (rows,) or query_position.shape != (rows,):
        raise ValueError(
            f"query_sample and query_position must have one entry per query row ({rows}), but have "
            f"{tuple(query_sample.shape)} and {tuple(query_position.shape)}."
        )
    if key_mask.shape != (samples, length):
        raise ValueError(
            f"key_mask must be [{samples}, {length}] like the keys, but is {list(key_mask.shape)}."
        )
    scaling = head_dim**-0.5 if scaling is None else scaling
    columns = torch.arange(length, device=key.device)
    total = torch.zeros(samples, heads, length, dtype=torch.float32, device=key.device)
    for sample in range(samples):
        own_rows = (query_sample == sample).nonzero().flatten()
        # [S, key_heads, d] → [key_heads, 1, d, S]: one key head serves a group of query heads.
        sample_key = key[sample].permute(1, 2, 0).unsqueeze(1)
        for chunk in own_rows.split(chunk_size):
            grouped = query[chunk].unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3)
            logits = (grouped @ sample_key).float() * scaling  # [key_heads, group, rows, S]
            offset = query_position[chunk][:, None] - columns  # [rows, S]
            visible = key_mask[sample] & (offset >= 0)
            if sliding_window is not None:
                visible &= offset < sliding_window
            # Padding may hold anything, NaN too: overwrite its logits rather than adding to them,
            # and overwrite again for a row that sees no key at all.
            logits = logits.masked_fill(~visible, float("-inf"))
            attention = logits.softmax(dim=-1).masked_fill(~visible, 0.0)
            total[sample] += attention.sum(dim=2).flatten(0, 1)  # [heads, S]
        total[sample] /= max(len(own_rows), 1)
    return total if per_head else total.mean(dim=1)
