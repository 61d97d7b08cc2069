"""Loads and products that the kernels share.

A product takes two sets of head vectors. In half precision the left vectors stay in place while
tiles of right vectors stream by. A head is held in two parts, `main` and `rest`, of widths that are
powers of two (see `launch.head_split`). In single precision a held head would take every register
there is, so both sides are streamed in chunks of the head, and MAIN is 0.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_part(
    pointers,  # [N], to the first element of each vector
    valid,  # bool [N]
    start,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """[N, WIDTH] from element `start` on; zero in vectors that are not valid, and past the head.

    WHOLE says that the part does not reach past the head.
    """
    element = start + tl.arange(0, WIDTH)
    inside = valid[:, None]
    if not WHOLE:
        inside = inside & (element < HEAD_DIM)[None, :]
    return tl.load(pointers[:, None] + element[None, :], mask=inside, other=0.0)


@triton.jit
def load_head(pointers, valid, HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    """Both parts of each vector, [N, MAIN] and [N, REST]; a part of width 0 is a placeholder."""
    main = valid
    rest = valid
    if MAIN > 0:
        main = load_part(pointers, valid, 0, HEAD_DIM, MAIN, MAIN <= HEAD_DIM)
    if REST > 0:
        rest = load_part(pointers, valid, MAIN, HEAD_DIM, REST, MAIN + REST <= HEAD_DIM)
    return main, rest


@triton.jit
def products(
    left_pointers,  # [N]
    left_valid,  # bool [N]
    left_main,  # what `load_head` gave for them
    left_rest,
    right_pointers,  # [M]
    right_valid,  # bool [M]
    HEAD_DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """float32 [N, M]: every left vector times every right one; those not valid count as zero."""
    if MAIN > 0:
        right_main, right_rest = load_head(right_pointers, right_valid, HEAD_DIM, MAIN, REST)
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
        product = tl.zeros([left_pointers.shape[0], right_pointers.shape[0]], dtype=tl.float32)
        for start in range(0, HEAD_DIM, CHUNK):
            left = load_part(left_pointers, left_valid, start, HEAD_DIM, CHUNK, WHOLE)
            right = load_part(right_pointers, right_valid, start, HEAD_DIM, CHUNK, WHOLE)
            product = tl.dot(left, tl.trans(right), product, input_precision=PRECISION)
    return product
