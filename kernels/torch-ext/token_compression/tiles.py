"""Parts that the kernels share: loading rows of a head, and products of such rows.

A head is held in two parts, `main` and `rest` (see `launch.head_split`). Where REST is 0 the second
one is a copy of the first that is never used.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_part(
    rows,  # pointers [N] to the first element of each row
    valid,  # bool [N]
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """[N, WIDTH]; zero in rows that are not valid, whatever memory holds there, and past the head."""
    columns = START + tl.arange(0, WIDTH)
    inside = valid[:, None]
    if START + WIDTH > HEAD_DIM:
        inside = inside & (columns < HEAD_DIM)[None, :]
    return tl.load(rows[:, None] + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_heads(
    rows,
    valid,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """Both parts of a head for each row: [N, MAIN] and [N, REST]."""
    main = load_part(rows, valid, 0, MAIN, HEAD_DIM)
    if REST > 0:
        rest = load_part(rows, valid, MAIN, REST, HEAD_DIM)
    else:
        rest = main
    return main, rest


@triton.jit
def products(
    left_main,
    left_rest,
    right_main,
    right_rest,
    REST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """float32 [N, M]: each left row times each right row."""
    if PRECISION == "widened":
        product = tl.dot(left_main.to(tl.float32), tl.trans(right_main).to(tl.float32))
        if REST > 0:
            product += tl.dot(left_rest.to(tl.float32), tl.trans(right_rest).to(tl.float32))
    else:
        product = tl.dot(left_main, tl.trans(right_main), input_precision=PRECISION)
        if REST > 0:
            product = tl.dot(left_rest, tl.trans(right_rest), product, input_precision=PRECISION)
    return product
