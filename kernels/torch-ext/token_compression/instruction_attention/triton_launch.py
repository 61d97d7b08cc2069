"""Triton version: the launches of both kernels and the sum between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import triton
from torch import Tensor

from ..launch import AMD, NVIDIA, Grid, Launch, current_vendor, dot_precision, head_split
from .triton_kernel import log_sum_exp_of_tiles, sum_over_queries


@cache
def configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """The one shipped configuration.

    A call takes about as long as its launches, so there is nothing to tune. The tile of keys is
    small enough to fill a GPU at 1,500 tokens and to fit the shared memory of consumer cards.
    """
    single = dtype == torch.float32
    warps = 8 if single or (head_dim > 128 and vendor == NVIDIA) else 4
    sizes = {"BLOCK_KEYS": 64, "BLOCK_QUERIES": 16 if single else 32}
    return (triton.Config(sizes, num_warps=warps, num_stages=1 if vendor == AMD else 2),)


def launches(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    scaling: float,
    sliding_window: int | None,
    per_head: bool,
    vendor: str,
    among: Tensor | None = None,
    query_counts: Sequence[int] | None = None,
) -> tuple[Launch, Launch, Tensor, Tensor, Tensor]:
    """Describe both launches.

    With `query_counts` the queries are in the order of their samples, and `order` is not read.

    Returns:
        The launches, then their buffers: partial [M, tiles, Q, heads], which the first launch
        fills, log_sum_exp [M, Q, heads], which the second one reads, and
        out [M, B, heads or key_heads, S]; M is 2 with `among` and otherwise 1.
    """
    queries, heads, head_dim = query.shape
    samples, length, key_heads, _ = key.shape
    group = heads // key_heads
    shipped = configs(head_dim, query.dtype, vendor)
    # Group the queries by sample. Queries of samples that do not exist fall off both ends.
    if query_counts is None:
        sorted_sample, order = query_sample.sort(stable=True)
        edges = torch.arange(samples + 1, device=query.device)
        sample_start = torch.searchsorted(sorted_sample, edges)
    else:
        order, sample_start = query_position, _starts(query_counts, query.device)
    smallest = min(config.kwargs["BLOCK_KEYS"] for config in shipped)
    maps, slots = (1 if among is None else 2), (heads if per_head else key_heads)
    sizes = (
        (maps, triton.cdiv(length, smallest), queries, heads),
        (maps, queries, heads),
        (maps, samples, slots, length),
    )
    partial, log_sum_exp, out = (query.new_empty(size, dtype=torch.float32) for size in sizes)
    main, rest = head_split(head_dim, query.dtype)
    shared: dict[str, Any] = {
        "query": query,
        "key": key,
        "order": order,
        "sample_start": sample_start,
        "query_position": query_position,
        "key_mask": key_mask,
        "among": key_mask if among is None else among,
        "queries": queries,
        "heads": heads,
        "length": length,
        "query_stride": query.stride(0),
        "query_head_stride": query.stride(1),
        "key_sample_stride": key.stride(0),
        "key_position_stride": key.stride(1),
        "key_head_stride": key.stride(2),
        "mask_sample_stride": key_mask.stride(0),
        "scaling": scaling,
        "window": sliding_window or 0,
        "HEAD_DIM": head_dim,
        "MAIN": main,
        "REST": rest,
        "WINDOWED": sliding_window is not None,
        "ORDERED": query_counts is not None,
        "STATISTICS": among is not None,
        "PRECISION": dot_precision(query.dtype, vendor),
    }

    def grid(slots: int) -> Grid:
        def size(meta: Mapping[str, Any]) -> tuple[int, ...]:
            return (triton.cdiv(length, meta["BLOCK_KEYS"]), slots, samples)

        return size

    return (
        Launch(
            log_sum_exp_of_tiles,
            grid(key_heads),
            {**shared, "partial": partial, "HEADS": group},
            shipped,
        ),
        Launch(
            sum_over_queries,
            grid(slots),
            {
                **shared,
                "log_sum_exp": log_sum_exp,
                "out": out,
                "GROUP": group,
                "HEADS": heads // slots,
            },
            shipped,
        ),
        partial,
        log_sum_exp,
        out,
    )


def _starts(counts: Sequence[int], device: torch.device) -> Tensor:
    """Where the queries of each sample start, and where they end, int64 [B + 1]."""
    starts = torch.tensor([0, *accumulate(counts)], device="cpu")
    # The host does not wait for a copy of pinned memory.
    pinned = device.type == "cuda"
    return (starts.pin_memory() if pinned else starts).to(device, non_blocking=pinned)


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
) -> Tensor:
    """The Triton version of both functions of the package, as in `torch_reference`."""
    samples, length = key.shape[:2]
    queries, heads = query.shape[:2]
    if queries == 0 or samples == 0 or length == 0:
        shape = (samples, heads, length) if per_head else (samples, length)
        return query.new_zeros(shape if among is None else (2, *shape), dtype=torch.float32)
    first, second, partial, log_sum_exp, out = launches(
        query,
        key,
        query_sample.contiguous(),
        query_position.contiguous(),
        key_mask.contiguous(),
        scaling=scaling,
        sliding_window=sliding_window,
        per_head=per_head,
        vendor=current_vendor(),
        among=None if among is None else among.contiguous(),
        query_counts=query_counts,
    )
    first.run()
    torch.logsumexp(partial, dim=1, out=log_sum_exp)  # [M, Q, heads]
    second.run()
    if among is not None:
        return out  # [2, B, heads, S]
    return out[0] if per_head else out[0].mean(dim=1)  # [B, heads, S] or [B, S]
