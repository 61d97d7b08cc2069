"""Triton version: two launches over tiles of keys, and nothing of size rows × keys.

A program owns one tile of keys of one key head and walks over the query rows of its sample. The
rows of all query heads that share the key head are packed into one axis, and a tile of products is
keys × packed rows, so the matrix units are full along the keys however few rows there are.

The first launch reduces each tile of keys to the log-sum-exp it adds to every row; their sum over
tiles is exact, as each is taken relative to its own maximum. The second one computes the same
products again, which costs less than moving them would, and sums the attention over the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import AMD, Launch, current_vendor, dot_precision, head_split
from ..tiles import hold, products

_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _logits(
    start,
    packed,
    first,
    first_head,
    columns,
    valid,
    key_rows,
    key_main,
    key_rest,
    query,
    order,
    position,
    query_row_stride,
    query_head_stride,
    factor,
    window,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    WINDOWED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """One tile in base 2, [keys, packed rows], with what it means: visible, row, head, inside."""
    index = start + tl.arange(0, BLOCK_ROWS)
    inside = index < packed
    row = tl.load(order + first + index // HEADS, mask=inside, other=0)
    head = first_head + index % HEADS
    at = tl.load(position + row, mask=inside, other=-1).to(tl.int32)
    query_rows = query + row * query_row_stride + head * query_head_stride
    logits = factor * products(
        key_rows,
        valid,
        key_main,
        key_rest,
        query_rows,
        inside,
        HEAD_DIM,
        MAIN,
        REST,
        PRECISION,
    )
    offset = at[None, :] - columns[:, None]
    visible = valid[:, None] & (offset >= 0)
    if WINDOWED:
        visible = visible & (offset < window)
    return tl.where(visible, logits, float("-inf")), visible, row, head, inside


@triton.jit
def _key_tile(
    key,
    key_mask,
    sample,
    key_head,
    length,
    key_sample_stride,
    key_column_stride,
    key_head_stride,
    mask_sample_stride,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """The keys that a program owns: columns, which are real, pointers, and both parts held."""
    columns = tl.program_id(0) * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    masks = key_mask + sample * mask_sample_stride + columns
    valid = tl.load(masks, mask=columns < length, other=0) != 0
    key_rows = key + sample * key_sample_stride + key_head * key_head_stride
    key_rows += columns.to(tl.int64) * key_column_stride
    key_main, key_rest = hold(key_rows, valid, HEAD_DIM, MAIN, REST)
    return columns, valid, key_rows, key_main, key_rest


@triton.jit
def log_sum_exp_of_tiles(
    query,
    key,
    order,
    sample_start,
    position,
    key_mask,
    partial,
    rows,
    heads,
    length,
    query_row_stride,
    query_head_stride,
    key_sample_stride,
    key_column_stride,
    key_head_stride,
    mask_sample_stride,
    scaling,
    window,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    WINDOWED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Partial [tiles, rows, heads]: log-sum-exp of each row over one tile, -inf if it sees none."""
    key_head = tl.program_id(1)
    sample = tl.program_id(2).to(tl.int64)
    columns, valid, key_rows, key_main, key_rest = _key_tile(
        key,
        key_mask,
        sample,
        key_head,
        length,
        key_sample_stride,
        key_column_stride,
        key_head_stride,
        mask_sample_stride,
        HEAD_DIM,
        MAIN,
        REST,
        BLOCK_KEYS,
    )
    first = tl.load(sample_start + sample)
    packed = ((tl.load(sample_start + sample + 1) - first) * HEADS).to(tl.int32)
    for start in range(0, packed, BLOCK_ROWS):
        logits, _, row, head, inside = _logits(
            start,
            packed,
            first,
            key_head * HEADS,
            columns,
            valid,
            key_rows,
            key_main,
            key_rest,
            query,
            order,
            position,
            query_row_stride,
            query_head_stride,
            scaling * _LOG2_E,
            window,
            HEADS,
            HEAD_DIM,
            MAIN,
            REST,
            WINDOWED,
            PRECISION,
            BLOCK_ROWS,
        )
        peak = tl.max(logits, 0)
        peak = tl.where(peak == float("-inf"), 0.0, peak)
        total = tl.sum(tl.exp2(logits - peak[None, :]), 0)
        slots = (tl.program_id(0).to(tl.int64) * rows + row) * heads + head
        tl.store(partial + slots, (peak + tl.log2(total)) * _LN_2, mask=inside)


@triton.jit
def sum_over_rows(
    query,
    key,
    order,
    sample_start,
    position,
    key_mask,
    log_sum_exp,
    out,
    heads,
    length,
    query_row_stride,
    query_head_stride,
    key_sample_stride,
    key_column_stride,
    key_head_stride,
    mask_sample_stride,
    scaling,
    window,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    WINDOWED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Out [B, heads / HEADS, S]: mean over rows and HEADS heads (one, or all of a key head)."""
    slot = tl.program_id(1)
    sample = tl.program_id(2).to(tl.int64)
    columns, valid, key_rows, key_main, key_rest = _key_tile(
        key,
        key_mask,
        sample,
        slot * HEADS // GROUP,
        length,
        key_sample_stride,
        key_column_stride,
        key_head_stride,
        mask_sample_stride,
        HEAD_DIM,
        MAIN,
        REST,
        BLOCK_KEYS,
    )
    first = tl.load(sample_start + sample)
    packed = ((tl.load(sample_start + sample + 1) - first) * HEADS).to(tl.int32)
    total = tl.zeros([BLOCK_KEYS, BLOCK_ROWS], dtype=tl.float32)
    for start in range(0, packed, BLOCK_ROWS):
        logits, visible, row, head, inside = _logits(
            start,
            packed,
            first,
            slot * HEADS,
            columns,
            valid,
            key_rows,
            key_main,
            key_rest,
            query,
            order,
            position,
            query_row_stride,
            query_head_stride,
            scaling * _LOG2_E,
            window,
            HEADS,
            HEAD_DIM,
            MAIN,
            REST,
            WINDOWED,
            PRECISION,
            BLOCK_ROWS,
        )
        norm = tl.load(log_sum_exp + row * heads + head, mask=inside, other=0.0)
        # A row that sees nothing has a norm of -inf, and -inf less -inf is not a number.
        total += tl.where(visible, tl.exp2(logits - norm[None, :] * _LOG2_E), 0.0)
    mean = tl.sum(total, 1) / tl.maximum(packed, 1).to(tl.float32)
    slots = (sample * tl.num_programs(1) + slot) * length + columns
    tl.store(out + slots, mean, mask=columns < length)


def configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """The one shipped configuration.

    A call at these sizes lasts about as long as its launches, so there is nothing to tune: the tile
    of keys is small enough to fill a GPU at 1,500 tokens and to need no more shared memory than
    consumer cards have.
    """
    large = head_dim > 128 and dtype == torch.float32
    sizes = {"BLOCK_KEYS": 32 if large else 64, "BLOCK_ROWS": 16 if large else 32}
    return (triton.Config(sizes, num_warps=4, num_stages=1 if vendor == AMD else 2),)


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
) -> tuple[Launch, Launch, Tensor, Tensor, Tensor]:
    """Describe both launches.

    Returns:
        The launches; the buffers between them, partial [tiles, R, heads] which the first one fills
        and log_sum_exp [R, heads] which the second one reads; and out [B, heads or key_heads, S].
    """
    rows, heads, head_dim = query.shape
    samples, length, key_heads, _ = key.shape
    group = heads // key_heads
    shipped = configs(head_dim, query.dtype, vendor)
    # Rows of one sample stand together; rows of no sample are left out on both sides.
    sorted_sample, order = query_sample.sort(stable=True)
    sample_start = torch.searchsorted(sorted_sample, torch.arange(samples + 1, device=query.device))
    smallest = min(config.kwargs["BLOCK_KEYS"] for config in shipped)
    partial = query.new_empty((triton.cdiv(length, smallest), rows, heads), dtype=torch.float32)
    log_sum_exp = query.new_empty((rows, heads), dtype=torch.float32)
    slots = heads if per_head else key_heads
    out = query.new_empty((samples, slots, length), dtype=torch.float32)
    main, rest = head_split(head_dim, query.dtype)
    shared: dict[str, Any] = {
        "query": query,
        "key": key,
        "order": order,
        "sample_start": sample_start,
        "position": query_position,
        "key_mask": key_mask,
        "heads": heads,
        "length": length,
        "query_row_stride": query.stride(0),
        "query_head_stride": query.stride(1),
        "key_sample_stride": key.stride(0),
        "key_column_stride": key.stride(1),
        "key_head_stride": key.stride(2),
        "mask_sample_stride": key_mask.stride(0),
        "scaling": scaling,
        "window": sliding_window or 0,
        "HEAD_DIM": head_dim,
        "MAIN": main,
        "REST": rest,
        "WINDOWED": sliding_window is not None,
        "PRECISION": dot_precision(query.dtype, vendor),
    }

    def grid(slots: int) -> Any:
        def size(meta: Mapping[str, Any]) -> tuple[int, ...]:
            return (triton.cdiv(length, meta["BLOCK_KEYS"]), slots, samples)

        return size

    return (
        Launch(
            log_sum_exp_of_tiles,
            grid(key_heads),
            {**shared, "partial": partial, "rows": rows, "HEADS": group},
            shipped,
        ),
        Launch(
            sum_over_rows,
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


def first_layer_attention(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    scaling: float,
    sliding_window: int | None,
    per_head: bool,
) -> Tensor:
    """As the function of that name in the package, whose caller has checked the arguments."""
    samples, length = key.shape[:2]
    heads = query.shape[1]
    if query.shape[0] == 0 or samples == 0 or length == 0:
        shape = (samples, heads, length) if per_head else (samples, length)
        return query.new_zeros(shape, dtype=torch.float32)
    first, second, partial, log_sum_exp, out = launches(
        query,
        key,
        query_sample,
        query_position.contiguous(),
        key_mask.contiguous(),
        scaling=scaling,
        sliding_window=sliding_window,
        per_head=per_head,
        vendor=current_vendor(),
    )
    first.run()
    torch.logsumexp(partial, dim=0, out=log_sum_exp)
    second.run()
    return out if per_head else out.mean(dim=1)
