"""Chunked torch version: no rows × keys matrix outlives a chunk of rows."""

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
    """As the function of that name in the package, whose caller has checked the arguments."""
    heads = query.shape[1]
    samples, length, key_heads, _ = key.shape
    columns = torch.arange(length, device=key.device)
    total = torch.zeros(samples, heads, length, dtype=torch.float32, device=key.device)
    for sample in range(samples):
        own_rows = (query_sample == sample).nonzero().flatten()
        sample_key = key[sample].permute(1, 2, 0)  # [key_heads, d, S]
        for chunk in own_rows.split(chunk_size):
            # One key head serves a group of query heads, whose rows are stacked in one product.
            grouped = query[chunk].unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3)
            logits = (grouped.flatten(1, 2) @ sample_key).float()  # [key_heads, group * rows, S]
            logits = logits.unflatten(1, grouped.shape[1:3]).mul_(scaling)
            offset = query_position[chunk][:, None] - columns  # [rows, S]
            visible = key_mask[sample] & (offset >= 0)
            if sliding_window is not None:
                visible &= offset < sliding_window
            # Padding may hold anything, NaN too: overwrite its logits rather than adding to them,
            # and overwrite again for a row that sees no key at all.
            attention = logits.masked_fill_(~visible, float("-inf")).softmax(dim=-1)
            attention = attention.masked_fill(~visible, 0.0)
            total[sample] += attention.sum(dim=2).flatten(0, 1)  # [heads, S]
        total[sample] /= max(len(own_rows), 1)
    return total if per_head else total.mean(dim=1)
