"""Chunked torch version: it holds queries × keys for one chunk of queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def instruction_attention(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    scaling: float,
    sliding_window: int | None,
    per_head: bool,
    chunk_size: int,
) -> Tensor:
    """The torch version of the package's function, which has checked the arguments."""
    heads = query.shape[1]
    samples, length, key_heads, _ = key.shape
    key_position = torch.arange(length, device=key.device)  # [S]
    total = torch.zeros(samples, heads, length, dtype=torch.float32, device=key.device)
    for sample in range(samples):
        queries = (query_sample == sample).nonzero().flatten()
        sample_key = key[sample].permute(1, 2, 0)  # [key_heads, d, S]
        for chunk in queries.split(chunk_size):
            # Logits: the query heads that share a key head are stacked into one product.
            grouped = query[chunk].unflatten(1, (key_heads, -1))  # [C, key_heads, group, d]
            grouped = grouped.permute(1, 2, 0, 3)  # [key_heads, group, C, d]
            logits = (grouped.flatten(1, 2) @ sample_key).float()  # [key_heads, group * C, S]
            # [key_heads, group, C, S]
            logits = logits.unflatten(1, grouped.shape[1:3]).mul_(scaling)
            # Causal order, padding and the window.
            offset = query_position[chunk][:, None] - key_position  # [C, S]
            visible = key_mask[sample] & (offset >= 0)
            if sliding_window is not None:
                visible &= offset < sliding_window
            # Padded keys may hold NaN, so their logits are overwritten. The attention of a query
            # without any visible key is NaN, so it is overwritten too.
            attention = logits.masked_fill_(~visible, float("-inf")).softmax(dim=-1)
            attention = attention.masked_fill(~visible, 0.0)
            total[sample] += attention.sum(dim=2).flatten(0, 1)  # [heads, S]
        total[sample] /= max(len(queries), 1)
    return total if per_head else total.mean(dim=1)  # [B, heads, S] or [B, S]
