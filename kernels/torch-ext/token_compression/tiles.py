"""Parts that the kernels share: rows of a head, and the products of two sets of such rows.

In half precision the left rows of a product stay where they are while tiles of right rows pass by.
A head is held in two parts, `main` and `rest`, of widths that are powers of two (see
`launch.head_split`). In single precision a held head would take every register there is, so both
sides are streamed in chunks of the head; MAIN is 0 then.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_part(
    rows,  # pointers [N] to the first element of each row
    valid,  # bool [N]
    start,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """[N, WIDTH]; zero in rows that are not valid, whatever memory holds there, and past the head.

    WHOLE says that nothing is past the head.
    """
    columns = start + tl.arange(0, WIDTH)
    inside = valid[:, None]
    if not WHOLE:
        inside = inside & (columns < HEAD_DIM)[None, :]
    return tl.load(rows[:, None] + columns[None, :], mask=inside, other=0.0)


@triton.jit
def hold(rows, valid, HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    """Both parts of a head for each row, [N, MAIN] and [N, REST]; anything where it is streamed."""
    main = valid
    rest = valid
    if MAIN > 0:
        main = load_part(rows, valid, 0, HEAD_DIM, MAIN, MAIN <= HEAD_DIM)
    if REST > 0:
        rest = load_part(rows, valid, MAIN, HEAD_DIM, REST, MAIN + REST <= HEAD_DIM)
    return main, rest


@triton.jit
def products(
    left_rows,  # pointers [N]
    left_valid,  # bool [N]
    left_main,  # what `hold` made of them
    left_rest,
    right_rows,  # pointers [M]
    right_valid,  # bool [M]
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """float32 [N, M]: each left row times each right row; rows that are not valid count as zero."""
    if MAIN > 0:
        right_main, right_rest = hold(right_rows, right_valid, HEAD_DIM, MAIN, REST)
        if PRECISION == "widened":
            product = tl.dot(left_main.to(tl.float32), tl.trans(right_main).to(tl.float32))
            if REST > 0:
                product += tl.dot(left_rest.to(tl.float32), tl.trans(right_rest).to(tl.float32))
        else:
            product = tl.dot(left_main, tl.trans(right_main), input_precision=PRECISION)
            if REST > 0:
                product = tl.dot(
                    left_rest, tl.trans(right_rest), product, input_precision=PRECISION
                )
    else:
        CHUNK: tl.constexpr = 32
        WHOLE: tl.constexpr = HEAD_DIM % CHUNK == 0
        product = tl.zeros([left_rows.shape[0], right_rows.shape[0]], dtype=tl.float32)
        for start in range(0, HEAD_DIM, CHUNK):
            left = load_part(left_rows, left_valid, start, HEAD_DIM, CHUNK, WHOLE)
            right = load_part(right_rows, right_valid, start, HEAD_DIM, CHUNK, WHOLE)
            product = tl.dot(left, tl.trans(right), product, input_precision=PRECISION)
    return product
