"""Chunked torch version: it holds queries × keys for one chunk of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_SHARE = 1e-9
"""What a query gives to the keys that shares are taken of counts as at least this much."""

_CHUNK_BYTES = 2**28
"""Logits that an accelerator holds at once. A CPU is faster with few queries at a time."""


def attention_statistics(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    query_counts: Sequence[int] | None,
    among: Tensor | None,
    scaling: float,
    sliding_window: int | None,
    per_head: bool,
    chunk_size: int,
    mask: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """The torch version of both functions of the package, which have checked the arguments.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`; with `among`, [2, B, heads, S].
    """
    heads = query.shape[1]
    length, key_heads = key.shape[1:3]
    if query_counts is None:
        order, query_counts = _in_order(query_sample, len(key))
        query, query_position = query[order], query_position[order]
        query_sample = query_sample[order]
        mask = None if mask is None else mask[order]
    key_position = torch.arange(length, device=key.device)  # [S]
    mean = key.new_zeros((len(key), heads, length), dtype=torch.float32)  # [B, heads, S]
    peak = mean if among is None else torch.zeros_like(mean)  # [B, heads, S]
    for block in _blocks(query, query_sample, query_position, mask, query_counts):
        own_mean, own_peak = mean[block.samples], peak[block.samples]  # [b, heads, S]
        own_key = key[block.samples].permute(0, 2, 3, 1)  # [b, key_heads, d, S]
        own_mask = key_mask[block.samples].unsqueeze(1)  # [b, 1, S]
        for chunk in block.chunks(chunk_size, heads * length):
            # Logits: the query heads that share a key head are stacked into one product.
            grouped = chunk.query.unflatten(2, (key_heads, -1))  # [b, C, key_heads, group, d]
            grouped = grouped.permute(0, 2, 3, 1, 4)  # [b, key_heads, group, C, d]
            logits = (grouped.flatten(2, 3) @ own_key).float()  # [b, key_heads, group * C, S]
            # [b, key_heads, group, C, S]
            logits = logits.unflatten(2, grouped.shape[2:4]).mul_(scaling)
            # Causal order, padding and the window.
            if chunk.mask is None:
                visible = causal_mask(chunk.position, key_position, sliding_window)
            else:
                visible = chunk.mask  # [b, C, S]
            visible = visible & own_mask
            if chunk.present is not None:
                visible = visible & chunk.present.unsqueeze(-1)
            attention = masked_softmax(logits.flatten(1, 2), visible.unsqueeze(1), softcap, sinks)
            del logits
            own_mean += attention.sum(dim=2)  # [b, heads, S]
            if among is not None:
                own_among = among[block.samples, None, None]  # [b, 1, 1, S]
                whole = attention.masked_fill(~own_among, 0.0).sum(dim=-1, keepdim=True)
                share = attention / whole.clamp(min=SMALLEST_SHARE)  # [b, heads, C, S]
                own_peak.clamp_(min=share.amax(dim=2))
        own_mean /= block.counts
    if among is not None:
        return torch.stack([mean, peak.masked_fill(~among.unsqueeze(1), 0.0)])
    return mean if per_head else mean.mean(dim=1)  # [B, heads, S] or [B, S]


@dataclass(frozen=True)
class _Block:
    """The queries of b samples, padded to C of each.

    Attributes:
        samples: Which samples.
        query: float [b, C, heads, d].
        position: int64 [b, C].
        counts: Queries of each sample, at least 1; int64 [b, 1, 1] if they differ.
        present: bool [b, C]; None if no query is padding.
        mask: bool [b, C, S], or None.
    """

    samples: slice
    query: Tensor
    position: Tensor
    counts: int | Tensor
    present: Tensor | None
    mask: Tensor | None

    def chunks(self, chunk_size: int, of_query: int) -> Iterator[_Block]:
        """Parts whose logits fit: those of a query are `of_query` floats."""
        if _few_launches(self.query.device):
            chunk_size = max(1, _CHUNK_BYTES // (4 * len(self.query) * of_query))
        for start in range(0, self.query.shape[1], chunk_size):
            own = slice(start, start + chunk_size)
            yield _Block(
                self.samples,
                self.query[:, own],
                self.position[:, own],
                self.counts,
                None if self.present is None else self.present[:, own],
                None if self.mask is None else self.mask[:, own],
            )


def _blocks(
    query: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    mask: Tensor | None,
    query_counts: Sequence[int],
) -> Iterator[_Block]:
    """Sample by sample on a CPU; all samples at once elsewhere, where launches cost more.

    The queries are in the order of the samples.
    """
    samples, longest = len(query_counts), max(query_counts, default=0)
    if not _few_launches(query.device):
        end = 0
        for sample, count in enumerate(query_counts):
            own = slice(end, end := end + count)
            own_mask = None if mask is None else mask[own].unsqueeze(0)
            yield _Block(
                slice(sample, sample + 1),
                query[own].unsqueeze(0),
                query_position[own].unsqueeze(0),
                max(count, 1),
                None,
                own_mask,
            )
        return
    parts = [query, query_position] if mask is None else [query, query_position, mask]
    counts: int | Tensor = max(longest, 1)
    present: Tensor | None = None
    if len(set(query_counts)) == 1:
        parts = [values.unflatten(0, (samples, longest)) for values in parts]
    else:
        device = query.device
        edges = torch.searchsorted(query_sample, torch.arange(samples + 1, device=device))
        index = edges[:-1, None] + torch.arange(longest, device=device)  # [B, C]
        present = index < edges[1:, None]  # [B, C]
        counts = edges.diff().clamp(min=1)[:, None, None]  # [B, 1, 1]
        index = index.clamp(max=len(query) - 1)
        parts = [values[index] for values in parts]
    own_mask = None if mask is None else parts[2]
    yield _Block(slice(samples), parts[0], parts[1], counts, present, own_mask)


def _few_launches(device: torch.device) -> bool:
    return device.type != "cpu"


def _in_order(query_sample: Tensor, samples: int) -> tuple[Tensor, list[int]]:
    """The queries in the order of their samples, int64 [Q], and how many each sample has.

    Queries of samples that do not exist are left out. The host waits for the device.
    """
    on_host = query_sample.cpu()
    own = [(on_host == sample).nonzero().flatten() for sample in range(samples)]
    order = torch.cat([on_host.new_empty(0), *own])
    return order.to(query_sample.device), [len(queries) for queries in own]


def causal_mask(query_position: Tensor, key_position: Tensor, sliding_window: int | None) -> Tensor:
    """Keys that queries see by causal order and a window, bool [..., C, S].

    Args:
        query_position: int64 [..., C].
        key_position: int64 [S].
        sliding_window: Number of keys that a query sees at most, its own included; None for all.
    """
    offset = query_position.unsqueeze(-1) - key_position  # [..., C, S]
    visible = offset >= 0
    return visible if sliding_window is None else visible & (offset < sliding_window)


def masked_softmax(
    logits: Tensor, visible: Tensor, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention of queries to the keys that they see, in the memory of `logits`.

    Args:
        logits: float32 [b, heads, C, S]; those of keys that no query sees may hold NaN.
        visible: bool [b, 1, C, S].
        softcap: Logits become softcap * tanh(logits / softcap); None for logits as they are.
        sinks: float [heads], a logit that takes attention from all keys; None without.

    Returns:
        float32 [b, heads, C, S]; 0 for a query that sees no key.
    """
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    hidden = ~visible
    logits = logits.masked_fill_(hidden, float("-inf"))
    if sinks is not None:
        column = sinks.to(logits)[:, None, None].expand(*logits.shape[:-1], 1)  # [b, heads, C, 1]
        attention = torch.cat([logits, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        attention = logits.softmax(dim=-1)
    # The attention of a query without any visible key is NaN.
    return attention.masked_fill(hidden, 0.0)
