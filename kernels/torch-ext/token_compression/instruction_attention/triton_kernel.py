"""Triton kernels: two launches over tiles of keys, without a queries × keys matrix.

A program owns one tile of keys of one key head and loops over the queries of its sample. The
queries of all heads that share the key head are packed into one axis, and a tile of products is
keys × packed queries. So the keys fill the matrix units, however few queries there are.

The first launch reduces each tile of keys to the log-sum-exp that it adds to every query. Summing
these over tiles is exact, because each is taken relative to its own maximum. The second launch
computes the products again, which is cheaper than storing them, and reduces the attention over the
queries.

With STATISTICS, the first launch also adds up the keys in `among`, and the second one also takes
the largest share of their attention. Both results are behind those without it, in the same buffers.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..tiles import load_head, products
from .torch_reference import SMALLEST_SHARE

_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))
_LOG_SMALLEST_SHARE = tl.constexpr(math.log(SMALLEST_SHARE))


@triton.jit
def _logits(
    start,
    packed,
    first,
    first_head,
    key_position,
    valid,
    key_pointers,
    key_main,
    key_rest,
    query,
    order,
    query_position,
    query_stride,
    query_head_stride,
    factor,
    window,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    WINDOWED: tl.constexpr,
    ORDERED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    """One tile of logits in base 2, [keys, packed queries].

    Also returns which of them are visible, the query and head of each packed query, and whether
    there is such a packed query.
    """
    # Unpack the index into a query and a head.
    index = start + tl.arange(0, BLOCK_QUERIES)
    inside = index < packed
    query_index = tl.where(inside, first + index // HEADS, 0)
    if not ORDERED:
        query_index = tl.load(order + query_index, mask=inside, other=0)
    head = first_head + index % HEADS
    position = tl.load(query_position + query_index, mask=inside, other=-1).to(tl.int32)
    query_pointers = query + query_index * query_stride + head * query_head_stride
    logits = factor * products(
        key_pointers,
        valid,
        key_main,
        key_rest,
        query_pointers,
        inside,
        HEAD_DIM,
        MAIN,
        REST,
        PRECISION,
    )
    # Causal order, padding and the window.
    offset = position[None, :] - key_position[:, None]
    visible = valid[:, None] & (offset >= 0)
    if WINDOWED:
        visible = visible & (offset < window)
    return tl.where(visible, logits, float("-inf")), visible, query_index, head, inside


@triton.jit
def _key_tile(
    key,
    key_mask,
    sample,
    key_head,
    length,
    key_sample_stride,
    key_position_stride,
    key_head_stride,
    mask_sample_stride,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """The keys of a program: positions, whether each is valid, pointers, and both parts."""
    key_position = tl.program_id(0) * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    masks = key_mask + sample * mask_sample_stride + key_position
    valid = tl.load(masks, mask=key_position < length, other=0) != 0
    key_pointers = key + sample * key_sample_stride + key_head * key_head_stride
    key_pointers += key_position.to(tl.int64) * key_position_stride
    key_main, key_rest = load_head(key_pointers, valid, HEAD_DIM, MAIN, REST)
    return key_position, valid, key_pointers, key_main, key_rest


@triton.jit
def log_sum_exp_of_tiles(
    query,
    key,
    order,
    sample_start,
    query_position,
    key_mask,
    among,
    partial,
    queries,
    heads,
    length,
    query_stride,
    query_head_stride,
    key_sample_stride,
    key_position_stride,
    key_head_stride,
    mask_sample_stride,
    scaling,
    window,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    WINDOWED: tl.constexpr,
    ORDERED: tl.constexpr,
    STATISTICS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    """Partial [1 or 2, tiles, Q, heads]: log-sum-exp of each query over one tile.

    It is -inf without keys. The second one is over the keys of the tile that are in `among`.
    """
    key_head = tl.program_id(1)
    sample = tl.program_id(2).to(tl.int64)
    key_position, valid, key_pointers, key_main, key_rest = _key_tile(
        key,
        key_mask,
        sample,
        key_head,
        length,
        key_sample_stride,
        key_position_stride,
        key_head_stride,
        mask_sample_stride,
        HEAD_DIM,
        MAIN,
        REST,
        BLOCK_KEYS,
    )
    chosen = valid
    if STATISTICS:
        marks = among + sample * mask_sample_stride + key_position
        chosen = tl.load(marks, mask=valid, other=0) != 0
    # The queries of the sample, packed with their heads.
    first = tl.load(sample_start + sample)
    packed = ((tl.load(sample_start + sample + 1) - first) * HEADS).to(tl.int32)
    for start in range(0, packed, BLOCK_QUERIES):
        logits, _, query_index, head, inside = _logits(
            start,
            packed,
            first,
            key_head * HEADS,
            key_position,
            valid,
            key_pointers,
            key_main,
            key_rest,
            query,
            order,
            query_position,
            query_stride,
            query_head_stride,
            scaling * _LOG2_E,
            window,
            HEADS,
            HEAD_DIM,
            MAIN,
            REST,
            WINDOWED,
            ORDERED,
            PRECISION,
            BLOCK_QUERIES,
        )
        # Relative to the maximum; a query that sees no key of the tile has a maximum of -inf.
        peak = tl.max(logits, 0)
        peak = tl.where(peak == float("-inf"), 0.0, peak)
        total = tl.sum(tl.exp2(logits - peak[None, :]), 0)
        slots = (tl.program_id(0).to(tl.int64) * queries + query_index) * heads + head
        tl.store(partial + slots, (peak + tl.log2(total)) * _LN_2, mask=inside)
        if STATISTICS:
            # What is too small for the maximum of all keys is too small for a share.
            weights = tl.where(chosen[:, None], tl.exp2(logits - peak[None, :]), 0.0)
            slots += tl.num_programs(0).to(tl.int64) * queries * heads
            total = tl.sum(weights, 0)
            tl.store(partial + slots, (peak + tl.log2(total)) * _LN_2, mask=inside)


@triton.jit
def sum_over_queries(
    query,
    key,
    order,
    sample_start,
    query_position,
    key_mask,
    among,
    log_sum_exp,
    out,
    queries,
    heads,
    length,
    query_stride,
    query_head_stride,
    key_sample_stride,
    key_position_stride,
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
    ORDERED: tl.constexpr,
    STATISTICS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    """Out [1 or 2, B, heads / HEADS, S]: mean over queries and HEADS heads.

    HEADS is one, or all of a key head. The second one, of single heads, is the peak.
    """
    slot = tl.program_id(1)
    sample = tl.program_id(2).to(tl.int64)
    key_position, valid, key_pointers, key_main, key_rest = _key_tile(
        key,
        key_mask,
        sample,
        slot * HEADS // GROUP,
        length,
        key_sample_stride,
        key_position_stride,
        key_head_stride,
        mask_sample_stride,
        HEAD_DIM,
        MAIN,
        REST,
        BLOCK_KEYS,
    )
    chosen = valid
    if STATISTICS:
        marks = among + sample * mask_sample_stride + key_position
        chosen = tl.load(marks, mask=valid, other=0) != 0
    # The queries of the sample, packed with their heads.
    first = tl.load(sample_start + sample)
    packed = ((tl.load(sample_start + sample + 1) - first) * HEADS).to(tl.int32)
    total = tl.zeros([BLOCK_KEYS, BLOCK_QUERIES], dtype=tl.float32)
    peak = tl.zeros([BLOCK_KEYS], dtype=tl.float32)
    for start in range(0, packed, BLOCK_QUERIES):
        logits, visible, query_index, head, inside = _logits(
            start,
            packed,
            first,
            slot * HEADS,
            key_position,
            valid,
            key_pointers,
            key_main,
            key_rest,
            query,
            order,
            query_position,
            query_stride,
            query_head_stride,
            scaling * _LOG2_E,
            window,
            HEADS,
            HEAD_DIM,
            MAIN,
            REST,
            WINDOWED,
            ORDERED,
            PRECISION,
            BLOCK_QUERIES,
        )
        norm = tl.load(log_sum_exp + query_index * heads + head, mask=inside, other=0.0)
        # A query that sees no key has a norm of -inf, and -inf minus -inf is NaN.
        attention = tl.where(visible, tl.exp2(logits - norm[None, :] * _LOG2_E), 0.0)
        total += attention
        if STATISTICS:
            # The shares of a query that gives these keys nearly nothing stay small.
            places = log_sum_exp + (queries + query_index) * heads + head
            whole = tl.load(places, mask=inside, other=0.0) - norm
            factor = tl.exp2(-tl.maximum(whole, _LOG_SMALLEST_SHARE) * _LOG2_E)
            factor = tl.where(norm == float("-inf"), 0.0, factor)
            peak = tl.maximum(peak, tl.max(attention * factor[None, :], 1))
    mean = tl.sum(total, 1) / tl.maximum(packed, 1).to(tl.float32)
    slots = (sample * tl.num_programs(1) + slot) * length + key_position
    tl.store(out + slots, mean, mask=key_position < length)
    if STATISTICS:
        slots += tl.num_programs(2).to(tl.int64) * tl.num_programs(1) * length
        tl.store(out + slots, tl.where(chosen, peak, 0.0), mask=key_position < length)
