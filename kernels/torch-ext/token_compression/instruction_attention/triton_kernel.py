"""Triton kernels: two launches over tiles of keys, and nothing of size rows × keys.

A program owns one tile of keys of one key head and walks over the query rows of its sample. The
rows of all query heads that share the key head are packed into one axis, and a tile of products is
keys × packed rows, so the matrix units are full along the keys however few rows there are.

The first launch reduces each tile of keys to the log-sum-exp it adds to every row; their sum over
tiles is exact, as each is taken relative to its own maximum. The second one computes the same
products again, which costs less than moving them would, and sums the attention over the rows.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

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
