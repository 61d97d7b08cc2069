"""Triton kernels: tiles of attention are recomputed and never stored, as in flash attention.

`key_sums` does the work. A program owns one tile of keys of one head and loops over the queries
that see it and carry relevance. A tile of products is keys × queries, with the keys held in place
as the left factor. It becomes attention through the log-sum-exp of each query, is multiplied with
its gradient, weighted with the relevance of the queries and summed over them. Up to two targets
share a tile of attention.

`query_statistics` runs first where a value per query is missing: the log-sum-exp if the caller has
not saved it, and the sum over keys if each query is normalized. As attention is positive,
f(A ⊙ ∂y/∂A) = A ⊙ f(∂y/∂A), so one pass with a running maximum gives both.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..tiles import load_head, products

_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _reduced(gradient, REDUCTION: tl.constexpr):
    if REDUCTION == "positive":
        gradient = tl.maximum(gradient, 0.0)
    if REDUCTION == "absolute":
        gradient = tl.abs(gradient)
    return gradient


@triton.jit
def _visible(
    position,  # int32, of the queries
    key_position,  # int32, broadcast against `position`
    inside,  # bool, broadcast against both
    mask,  # pointer to the first query and key
    query_index,
    mask_query_stride,
    mask_key_stride,
    window,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
):
    offset = position - key_position
    visible = inside
    if CAUSAL:
        visible = visible & (offset >= 0)
    if WINDOWED:
        visible = visible & (offset < window)
    if MASKED:
        cells = mask + query_index * mask_query_stride + key_position.to(tl.int64) * mask_key_stride
        visible = visible & (tl.load(cells, mask=visible, other=0) != 0)
    return visible


@triton.jit
def query_statistics(
    query,
    key,
    value,
    grad_output,
    positions,
    active_queries,
    key_mask,
    mask,
    log_sum_exp,
    query_sum,
    batch,
    heads,
    queries,
    length,
    query_strides_b,
    query_strides_h,
    query_strides_q,
    key_strides_b,
    key_strides_h,
    key_strides_s,
    value_strides_b,
    value_strides_h,
    value_strides_s,
    grad_strides_t,
    grad_strides_b,
    grad_strides_h,
    grad_strides_q,
    mask_strides_b,
    mask_strides_h,
    mask_strides_q,
    mask_strides_s,
    scaling,
    window,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_MAIN: tl.constexpr,
    VALUE_REST: tl.constexpr,
    REDUCTION: tl.constexpr,
    SUMMED: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """log_sum_exp [B, heads, Q], and query_sum [T, B, heads, Q] of attention times gradient."""
    head = tl.program_id(1)
    sample = (tl.program_id(2) % batch).to(tl.int64)
    target = (tl.program_id(2) // batch).to(tl.int64)
    # The active queries of this tile.
    first = tl.load(active_queries + 2 * sample)
    last = tl.load(active_queries + 2 * sample + 1)
    start = tl.program_id(0) * BLOCK_QUERIES
    if (start >= last) | (start + BLOCK_QUERIES <= first):
        return
    index = start + tl.arange(0, BLOCK_QUERIES)
    inside = (index >= first) & (index < last)
    index = index.to(tl.int64)
    position = tl.load(positions + index, mask=inside, other=-1).to(tl.int32)
    query_pointers = query + sample * query_strides_b + head * query_strides_h
    query_pointers += index * query_strides_q
    query_main, query_rest = load_head(query_pointers, inside, HEAD_DIM, MAIN, REST)
    key += sample * key_strides_b + (head // GROUP) * key_strides_h
    mask += sample * mask_strides_b + head * mask_strides_h
    if SUMMED and REDUCTION != "attention":
        value += sample * value_strides_b + (head // GROUP) * value_strides_h
        grad_pointers = grad_output + target * grad_strides_t + sample * grad_strides_b
        grad_pointers += head * grad_strides_h + index * grad_strides_q
        grad_main, grad_rest = load_head(grad_pointers, inside, VALUE_DIM, VALUE_MAIN, VALUE_REST)
    # The keys that some query of the tile can see.
    begin, end = 0, length
    if CAUSAL:
        end = tl.minimum(length, tl.max(position, 0) + 1)
    if WINDOWED:
        lowest = tl.min(tl.where(inside, position, 2147483647), 0)
        begin = tl.maximum(0, lowest - window + 1) // BLOCK_KEYS * BLOCK_KEYS
    # Online softmax: maximum, sum, and sum of attention times gradient.
    peak = tl.full([BLOCK_QUERIES], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_QUERIES], dtype=tl.float32)
    weighted = tl.zeros([BLOCK_QUERIES], dtype=tl.float32)
    for tile in range(begin, end, BLOCK_KEYS):
        key_index = tile + tl.arange(0, BLOCK_KEYS)
        valid = tl.load(key_mask + sample * length + key_index, mask=key_index < length, other=0)
        valid = valid != 0
        key_offset = key_index.to(tl.int64)
        logits = products(
            query_pointers,
            inside,
            query_main,
            query_rest,
            key + key_offset * key_strides_s,
            valid,
            HEAD_DIM,
            MAIN,
            REST,
            PRECISION,
        )
        visible = _visible(
            position[:, None],
            key_index[None, :],
            inside[:, None] & valid[None, :],
            mask,
            index[:, None],
            mask_strides_q,
            mask_strides_s,
            window,
            CAUSAL,
            WINDOWED,
            MASKED,
        )
        logits = tl.where(visible, logits * (scaling * _LOG2_E), float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        # A query that has seen no key yet has a peak of -inf, and -inf minus -inf is NaN.
        anchor = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(peak - anchor)
        share = tl.exp2(logits - anchor[:, None])
        total = total * fade + tl.sum(share, 1)
        peak = higher
        if SUMMED and REDUCTION != "attention":
            gradient = products(
                grad_pointers,
                inside,
                grad_main,
                grad_rest,
                value + key_offset * value_strides_s,
                valid,
                VALUE_DIM,
                VALUE_MAIN,
                VALUE_REST,
                PRECISION,
            )
            weighted = weighted * fade + tl.sum(share * _reduced(gradient, REDUCTION), 1)
    slots = (sample * heads + head) * queries + index
    anchor = tl.where(peak == float("-inf"), 0.0, peak)
    tl.store(log_sum_exp + slots, (anchor + tl.log2(total)) * _LN_2, mask=inside & (target == 0))
    if SUMMED:
        if REDUCTION == "attention":
            weighted = total
        seen = total > 0
        mean = tl.where(seen, weighted / tl.where(seen, total, 1.0), 0.0)
        tl.store(query_sum + target * batch * heads * queries + slots, mean, mask=inside)


@triton.jit
def _weighted_sum(
    weights,  # pointer to the queries of one target and sample
    grad_output,  # pointer to the first query of one target, sample and head
    wanted,  # scalar bool, whether there is such a target
    index,
    inside,
    attention,
    visible,
    value_pointers,
    valid,
    value_main,
    value_rest,
    grad_query_stride,
    VALUE_DIM: tl.constexpr,
    VALUE_MAIN: tl.constexpr,
    VALUE_REST: tl.constexpr,
    REDUCTION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[keys]: what one tile of queries adds to the relevance of the keys, for one target."""
    weight = tl.load(weights + index, mask=inside & wanted, other=0.0)
    edges = attention
    if REDUCTION != "attention":
        grad_pointers = grad_output + index * grad_query_stride
        # Gradients of queries without relevance are not read: they may hold NaN.
        gradient = products(
            value_pointers,
            valid,
            value_main,
            value_rest,
            grad_pointers,
            weight != 0,
            VALUE_DIM,
            VALUE_MAIN,
            VALUE_REST,
            PRECISION,
        )
        edges = attention * _reduced(gradient, REDUCTION)
    # Edges that are not visible may be NaN, so they are overwritten.
    return tl.sum(tl.where(visible, edges, 0.0) * weight[None, :], 1)


@triton.jit
def key_sums(
    weights,
    query,
    key,
    value,
    grad_output,
    positions,
    queries_before,
    active_queries,
    key_mask,
    mask,
    log_sum_exp,
    out,
    targets,
    batch,
    heads,
    queries,
    length,
    query_strides_b,
    query_strides_h,
    query_strides_q,
    key_strides_b,
    key_strides_h,
    key_strides_s,
    value_strides_b,
    value_strides_h,
    value_strides_s,
    grad_strides_t,
    grad_strides_b,
    grad_strides_h,
    grad_strides_q,
    mask_strides_b,
    mask_strides_h,
    mask_strides_q,
    mask_strides_s,
    scaling,
    window,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_MAIN: tl.constexpr,
    VALUE_REST: tl.constexpr,
    REDUCTION: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
    TARGETS_AT_ONCE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    """Out [T, B, heads, S]: Σ_q weights[t, b, q] · f(A ⊙ ∂y/∂A)[h, q, k]."""
    head = tl.program_id(1)
    sample = (tl.program_id(2) % batch).to(tl.int64)
    target = (tl.program_id(2) // batch).to(tl.int64) * TARGETS_AT_ONCE
    # Hold the keys and values of this program.
    low = tl.program_id(0) * BLOCK_KEYS
    key_index = low + tl.arange(0, BLOCK_KEYS)
    valid = tl.load(key_mask + sample * length + key_index, mask=key_index < length, other=0) != 0
    key_offset = key_index.to(tl.int64)
    key_pointers = key + sample * key_strides_b + (head // GROUP) * key_strides_h
    key_pointers += key_offset * key_strides_s
    key_main, key_rest = load_head(key_pointers, valid, HEAD_DIM, MAIN, REST)
    value_pointers = value + sample * value_strides_b + (head // GROUP) * value_strides_h
    value_pointers += key_offset * value_strides_s
    value_main = valid
    value_rest = valid
    if REDUCTION != "attention":
        value_main, value_rest = load_head(value_pointers, valid, VALUE_DIM, VALUE_MAIN, VALUE_REST)
    # Move the pointers to this sample, head and target.
    query += sample * query_strides_b + head * query_strides_h
    grad_output += target * grad_strides_t + sample * grad_strides_b + head * grad_strides_h
    mask += sample * mask_strides_b + head * mask_strides_h
    log_sum_exp += (sample * heads + head) * queries
    weights += (target * batch + sample) * queries
    # The active queries that can see some key of the tile.
    first = tl.load(active_queries + 2 * sample)
    last = tl.load(active_queries + 2 * sample + 1)
    if CAUSAL:
        first = tl.maximum(first, tl.load(queries_before + low))
    if WINDOWED:
        reach = tl.minimum(low + BLOCK_KEYS - 1 + window, length)
        last = tl.minimum(last, tl.load(queries_before + reach))
    sums = tl.zeros([BLOCK_KEYS], dtype=tl.float32)
    more_sums = tl.zeros([BLOCK_KEYS], dtype=tl.float32)
    for start in range(first, last, BLOCK_QUERIES):
        index = start + tl.arange(0, BLOCK_QUERIES)
        inside = index < last
        position = tl.load(positions + index, mask=inside, other=-1).to(tl.int32)
        index = index.to(tl.int64)
        # Queries without relevance are not read: they may hold NaN.
        active = tl.load(weights + index, mask=inside, other=0.0) != 0
        if TARGETS_AT_ONCE == 2:
            second = inside & (target + 1 < targets)
            active |= tl.load(weights + batch * queries + index, mask=second, other=0.0) != 0
        # Attention, from the log-sum-exp of each query.
        norm = tl.load(log_sum_exp + index, mask=active, other=0.0)
        logits = products(
            key_pointers,
            valid,
            key_main,
            key_rest,
            query + index * query_strides_q,
            active,
            HEAD_DIM,
            MAIN,
            REST,
            PRECISION,
        )
        attention = tl.exp2(logits * (scaling * _LOG2_E) - norm[None, :] * _LOG2_E)
        visible = _visible(
            position[None, :],
            key_index[:, None],
            active[None, :] & valid[:, None],
            mask,
            index[None, :],
            mask_strides_q,
            mask_strides_s,
            window,
            CAUSAL,
            WINDOWED,
            MASKED,
        )
        # One or two targets share this tile of attention.
        sums += _weighted_sum(
            weights,
            grad_output,
            True,
            index,
            inside,
            attention,
            visible,
            value_pointers,
            valid,
            value_main,
            value_rest,
            grad_strides_q,
            VALUE_DIM,
            VALUE_MAIN,
            VALUE_REST,
            REDUCTION,
            PRECISION,
        )
        if TARGETS_AT_ONCE == 2:
            more_sums += _weighted_sum(
                weights + batch * queries,
                grad_output + grad_strides_t,
                target + 1 < targets,
                index,
                inside,
                attention,
                visible,
                value_pointers,
                valid,
                value_main,
                value_rest,
                grad_strides_q,
                VALUE_DIM,
                VALUE_MAIN,
                VALUE_REST,
                REDUCTION,
                PRECISION,
            )
    slots = ((target * batch + sample) * heads + head) * length + key_index
    tl.store(out + slots, sums, mask=key_index < length)
    if TARGETS_AT_ONCE == 2:
        slots = (((target + 1) * batch + sample) * heads + head) * length + key_index
        tl.store(out + slots, more_sums, mask=(key_index < length) & (target + 1 < targets))
