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
    mask: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
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
            if mask is None:
                visible = causal_mask(query_position[chunk], key_position, sliding_window)
            else:
                visible = mask[chunk]  # [C, S]
            visible = visible & key_mask[sample]
            attention = masked_softmax(logits.flatten(0, 1), visible, softcap, sinks)
            total[sample] += attention.sum(dim=1)  # [heads, S]
        total[sample] /= max(len(queries), 1)
    return total if per_head else total.mean(dim=1)  # [B, heads, S] or [B, S]


def causal_mask(query_position: Tensor, key_position: Tensor, sliding_window: int | None) -> Tensor:
    """Keys that queries see by causal order and a window, bool [C, S].

    Args:
        query_position: int64 [C].
        key_position: int64 [S].
        sliding_window: Number of keys that a query sees at most, its own included; None for all.
    """
    offset = query_position[:, None] - key_position  # [C, S]
    visible = offset >= 0
    return visible if sliding_window is None else visible & (offset < sliding_window)


def masked_softmax(
    logits: Tensor, visible: Tensor, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention of queries to the keys that they see, in the memory of `logits`.

    Args:
        logits: float32 [heads, C, S]; those of keys that no query sees may hold NaN.
        visible: bool [C, S].
        softcap: Logits become softcap * tanh(logits / softcap); None for logits as they are.
        sinks: float [heads], a logit that takes attention from all keys; None without.

    Returns:
        float32 [heads, C, S]; 0 for a query that sees no key.
    """
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    logits = logits.masked_fill_(~visible, float("-inf"))
    if sinks is not None:
        column = sinks.to(logits)[:, None, None].expand(-1, logits.shape[1], 1)  # [heads, C, 1]
        attention = torch.cat([logits, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        attention = logits.softmax(dim=-1)
    # The attention of a query without any visible key is NaN.
    return attention.masked_fill(~visible, 0.0)
