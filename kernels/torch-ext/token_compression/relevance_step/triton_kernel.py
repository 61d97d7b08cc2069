"""Triton kernels: tiles of attention are made, used and forgotten, as in flash attention.

`column_sums` does the work. A program owns one tile of keys of one head and walks over the query
rows that see it and carry relevance. A tile of products is keys × rows, with the keys held in place
as the left factor; attention is made again from the log-sum-exp of its row, multiplied with its
gradient, weighed with the relevance of the row and summed over rows. One or two targets share it.

`row_statistics` goes before it where something is to be known of whole rows: their log-sum-exp if
the caller has not saved it, and their sum if rows are to be normalised. As attention is positive,
f(A ⊙ ∂y/∂A) = A ⊙ f(∂y/∂A), so that both come out of one pass with a running maximum.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..tiles import hold, products

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
    at,  # int32, columns of the query rows
    columns,  # int32, broadcast against `at`
    inside,  # bool, broadcast against both
    mask,  # pointer to the first row and column
    rows,
    mask_row_stride,
    mask_key_stride,
    window,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
):
    offset = at - columns
    visible = inside
    if CAUSAL:
        visible = visible & (offset >= 0)
    if WINDOWED:
        visible = visible & (offset < window)
    if MASKED:
        cells = mask + rows * mask_row_stride + columns.to(tl.int64) * mask_key_stride
        visible = visible & (tl.load(cells, mask=visible, other=0) != 0)
    return visible


@triton.jit
def row_statistics(
    query,
    key,
    value,
    grad_output,
    positions,
    active_rows,
    key_mask,
    mask,
    log_sum_exp,
    row_sum,
    batch,
    heads,
    rows,
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
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """log_sum_exp [B, heads, Q], and row_sum [T, B, heads, Q] of attention times gradient."""
    head = tl.program_id(1)
    sample = (tl.program_id(2) % batch).to(tl.int64)
    target = (tl.program_id(2) // batch).to(tl.int64)
    first = tl.load(active_rows + 2 * sample)
    last = tl.load(active_rows + 2 * sample + 1)
    start = tl.program_id(0) * BLOCK_ROWS
    if (start >= last) | (start + BLOCK_ROWS <= first):
        return
    row = start + tl.arange(0, BLOCK_ROWS)
    row_inside = (row >= first) & (row < last)
    row = row.to(tl.int64)
    at = tl.load(positions + row, mask=row_inside, other=-1).to(tl.int32)
    query_rows = query + sample * query_strides_b + head * query_strides_h + row * query_strides_q
    query_main, query_rest = hold(query_rows, row_inside, HEAD_DIM, MAIN, REST)
    key += sample * key_strides_b + (head // GROUP) * key_strides_h
    mask += sample * mask_strides_b + head * mask_strides_h
    if SUMMED and REDUCTION != "attention":
        value += sample * value_strides_b + (head // GROUP) * value_strides_h
        grad_rows = grad_output + target * grad_strides_t + sample * grad_strides_b
        grad_rows += head * grad_strides_h + row * grad_strides_q
        grad_main, grad_rest = hold(grad_rows, row_inside, VALUE_DIM, VALUE_MAIN, VALUE_REST)
    peak = tl.full([BLOCK_ROWS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_ROWS], dtype=tl.float32)
    weighed = tl.zeros([BLOCK_ROWS], dtype=tl.float32)
    begin, end = 0, length
    if CAUSAL:
        end = tl.minimum(length, tl.max(at, 0) + 1)
    if WINDOWED:
        lowest = tl.min(tl.where(row_inside, at, 2147483647), 0)
        begin = tl.maximum(0, lowest - window + 1) // BLOCK_KEYS * BLOCK_KEYS
    for tile in range(begin, end, BLOCK_KEYS):
        column = tile + tl.arange(0, BLOCK_KEYS)
        valid = tl.load(key_mask + sample * length + column, mask=column < length, other=0) != 0
        column_offset = column.to(tl.int64)
        logits = products(
            query_rows,
            row_inside,
            query_main,
            query_rest,
            key + column_offset * key_strides_s,
            valid,
            HEAD_DIM,
            MAIN,
            REST,
            PRECISION,
        )
        visible = _visible(
            at[:, None],
            column[None, :],
            row_inside[:, None] & valid[None, :],
            mask,
            row[:, None],
            mask_strides_q,
            mask_strides_s,
            window,
            CAUSAL,
            WINDOWED,
            MASKED,
        )
        logits = tl.where(visible, logits * (scaling * _LOG2_E), float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        # While a row has seen nothing its peak is -inf, and -inf less -inf is not a number.
        anchor = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(peak - anchor)
        share = tl.exp2(logits - anchor[:, None])
        total = total * fade + tl.sum(share, 1)
        peak = higher
        if SUMMED and REDUCTION != "attention":
            gradient = products(
                grad_rows,
                row_inside,
                grad_main,
                grad_rest,
                value + column_offset * value_strides_s,
                valid,
                VALUE_DIM,
                VALUE_MAIN,
                VALUE_REST,
                PRECISION,
            )
            weighed = weighed * fade + tl.sum(share * _reduced(gradient, REDUCTION), 1)
    slots = (sample * heads + head) * rows + row
    anchor = tl.where(peak == float("-inf"), 0.0, peak)
    tl.store(
        log_sum_exp + slots, (anchor + tl.log2(total)) * _LN_2, mask=row_inside & (target == 0)
    )
    if SUMMED:
        if REDUCTION == "attention":
            weighed = total
        seen = total > 0
        mean = tl.where(seen, weighed / tl.where(seen, total, 1.0), 0.0)
        tl.store(row_sum + target * batch * heads * rows + slots, mean, mask=row_inside)


@triton.jit
def _weighed_columns(
    weights,  # pointer to the rows of one target and sample
    grad_output,  # pointer to the first row of one target, sample and head
    wanted,  # scalar bool, whether there is such a target
    row,
    inside,
    attention,
    visible,
    value_rows,
    valid,
    value_main,
    value_rest,
    grad_row_stride,
    VALUE_DIM: tl.constexpr,
    VALUE_MAIN: tl.constexpr,
    VALUE_REST: tl.constexpr,
    REDUCTION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[keys]: what one tile of rows adds to the relevance of the keys, for one target."""
    weight = tl.load(weights + row, mask=inside & wanted, other=0.0)
    edges = attention
    if REDUCTION != "attention":
        grad_rows = grad_output + row * grad_row_stride
        # Rows without relevance are not read: they may hold anything.
        gradient = products(
            value_rows,
            valid,
            value_main,
            value_rest,
            grad_rows,
            weight != 0,
            VALUE_DIM,
            VALUE_MAIN,
            VALUE_REST,
            PRECISION,
        )
        edges = attention * _reduced(gradient, REDUCTION)
    # Padded keys may hold anything too: overwrite what came of them.
    return tl.sum(tl.where(visible, edges, 0.0) * weight[None, :], 1)


@triton.jit
def column_sums(
    weights,
    query,
    key,
    value,
    grad_output,
    positions,
    rows_before,
    active_rows,
    key_mask,
    mask,
    log_sum_exp,
    out,
    targets,
    batch,
    heads,
    rows,
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
    BLOCK_ROWS: tl.constexpr,
):
    """Out [T, B, heads, S]: Σ_q weights[t, b, q] · f(A ⊙ ∂y/∂A)[h, q, k]."""
    head = tl.program_id(1)
    sample = (tl.program_id(2) % batch).to(tl.int64)
    target = (tl.program_id(2) // batch).to(tl.int64) * TARGETS_AT_ONCE
    low = tl.program_id(0) * BLOCK_KEYS
    column = low + tl.arange(0, BLOCK_KEYS)
    valid = tl.load(key_mask + sample * length + column, mask=column < length, other=0) != 0
    column_offset = column.to(tl.int64)
    key_rows = key + sample * key_strides_b + (head // GROUP) * key_strides_h
    key_rows += column_offset * key_strides_s
    key_main, key_rest = hold(key_rows, valid, HEAD_DIM, MAIN, REST)
    value_rows = value + sample * value_strides_b + (head // GROUP) * value_strides_h
    value_rows += column_offset * value_strides_s
    value_main = valid
    value_rest = valid
    if REDUCTION != "attention":
        value_main, value_rest = hold(value_rows, valid, VALUE_DIM, VALUE_MAIN, VALUE_REST)
    query += sample * query_strides_b + head * query_strides_h
    grad_output += target * grad_strides_t + sample * grad_strides_b + head * grad_strides_h
    mask += sample * mask_strides_b + head * mask_strides_h
    log_sum_exp += (sample * heads + head) * rows
    weights += (target * batch + sample) * rows
    first = tl.load(active_rows + 2 * sample)
    last = tl.load(active_rows + 2 * sample + 1)
    if CAUSAL:
        first = tl.maximum(first, tl.load(rows_before + low))
    if WINDOWED:
        reach = tl.minimum(low + BLOCK_KEYS - 1 + window, length)
        last = tl.minimum(last, tl.load(rows_before + reach))
    sums = tl.zeros([BLOCK_KEYS], dtype=tl.float32)
    more_sums = tl.zeros([BLOCK_KEYS], dtype=tl.float32)
    for start in range(first, last, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        inside = row < last
        at = tl.load(positions + row, mask=inside, other=-1).to(tl.int32)
        row = row.to(tl.int64)
        # Rows without relevance are not read: they may hold anything.
        carries = tl.load(weights + row, mask=inside, other=0.0) != 0
        if TARGETS_AT_ONCE == 2:
            second = inside & (target + 1 < targets)
            carries |= tl.load(weights + batch * rows + row, mask=second, other=0.0) != 0
        norm = tl.load(log_sum_exp + row, mask=carries, other=0.0)
        logits = products(
            key_rows,
            valid,
            key_main,
            key_rest,
            query + row * query_strides_q,
            carries,
            HEAD_DIM,
            MAIN,
            REST,
            PRECISION,
        )
        attention = tl.exp2(logits * (scaling * _LOG2_E) - norm[None, :] * _LOG2_E)
        visible = _visible(
            at[None, :],
            column[:, None],
            carries[None, :] & valid[:, None],
            mask,
            row[None, :],
            mask_strides_q,
            mask_strides_s,
            window,
            CAUSAL,
            WINDOWED,
            MASKED,
        )
        sums += _weighed_columns(
            weights,
            grad_output,
            True,
            row,
            inside,
            attention,
            visible,
            value_rows,
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
            more_sums += _weighed_columns(
                weights + batch * rows,
                grad_output + grad_strides_t,
                target + 1 < targets,
                row,
                inside,
                attention,
                visible,
                value_rows,
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
    slots = ((target * batch + sample) * heads + head) * length + column
    tl.store(out + slots, sums, mask=column < length)
    if TARGETS_AT_ONCE == 2:
        slots = (((target + 1) * batch + sample) * heads + head) * length + column
        tl.store(out + slots, more_sums, mask=(column < length) & (target + 1 < targets))
