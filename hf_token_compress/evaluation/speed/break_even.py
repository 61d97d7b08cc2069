"""From how many visual tokens on compression is faster on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...compression import compress, uncompress
from ...compression.mixin import TokenCompressionMixin
from ...config import SettingLike, TokenCompressionConfig
from .bench import PromptBench
from .prompts import sized_prompt
from .random_model import Depth

_LOWEST = 16
_PRECISION = 1.1


def break_even(
    model: Any,
    processor: Any,
    config: SettingLike | None = None,
    *,
    batch_size: int = 1,
    max_visual_tokens: int = 6000,
    repeats: int = 5,
    depth: Depth | None = None,
    after_measurement: Callable[[int, float], None] | None = None,
) -> int | None:
    """The number of visual tokens from which on compression brings the first token earlier here.

    Prompts are made longer until compression is faster in three quarters of the repeats, then the
    number is found by bisection, to a tenth. The vision part is left out: it costs the same with
    and without compression. Use the number as `min_visual_tokens`.

    Args:
        model: A loaded model, compressed or not; its setting stays as it is.
        processor: Its processor.
        config: What to measure, but for its `min_visual_tokens`; by default the setting of the
            compressed model.
        batch_size: Prompts per batch.
        max_visual_tokens: Longest prompt to try.
        repeats: Measurements at each number of tokens, after one to warm up.
        depth: As in `measure_speed`.
        after_measurement: Called with each number of visual tokens and the median time to the
            first token, as a share of the uncompressed model's.

    Returns:
        Visual tokens of a prompt, 16 or more; None if compression is slower at
        `max_visual_tokens` too.

    Raises:
        MapperNotFoundError: There is no such mapper.
        TypeError, ValueError: The setting is wrong or does not fit the model, or there is none.
    """
    compressed = isinstance(model, TokenCompressionMixin)
    if config is None and not compressed:
        raise ValueError("break_even needs a setting to measure: pass config, or compress first.")
    value: Any = {"min_visual_tokens": 0}
    if config is not None:
        value = replace(TokenCompressionConfig.coerce(config), **value)
    if not compressed:
        compress(model, value)
    try:
        return search_break_even(
            model,
            processor,
            value,
            batch_size=batch_size,
            max_visual_tokens=max_visual_tokens,
            repeats=repeats,
            depth=depth,
            after_measurement=after_measurement,
        )
    finally:
        if not compressed:
            uncompress(model)


def search_break_even(
    model: Any,
    processor: Any,
    value: Any,
    *,
    batch_size: int = 1,
    max_visual_tokens: int,
    repeats: int,
    depth: Depth | None = None,
    after_measurement: Callable[[int, float], None] | None = None,
) -> int | None:
    """As `break_even`, for a compressed model and what its calls pass as `token_compression`.

    Args:
        model: A compressed model.
        processor: Its processor.
        value: What calls pass; `min_visual_tokens` should be 0.
        batch_size: As in `break_even`.
        max_visual_tokens: As in `break_even`.
        repeats: As in `break_even`.
        depth: As in `measure_speed`.
        after_measurement: As in `break_even`.
    """
    made: dict[int, int] = {}
    faster: dict[int, bool] = {}

    def is_faster(count: int) -> bool:
        prompt = sized_prompt(model, processor, count, batch_size=batch_size)
        real = made[count] = prompt.visual_tokens
        # Several counts may give the same prompt.
        if real not in faster:
            bench = PromptBench(model, prompt, depth=depth)
            bench.add("", value)
            share = bench.compare(repeats)
            faster[real] = share.quartiles[1] < 1
            if after_measurement is not None:
                after_measurement(real, share.median)
        return faster[real]

    found = first_count(is_faster, _LOWEST, max_visual_tokens)
    return None if found is None else made[found]


def first_count(holds: Callable[[int], bool], lowest: int, highest: int) -> int | None:
    """The first number from which on something holds, by doubling and then by bisection.

    Args:
        holds: Whether it holds at a number.
        lowest: First number to try.
        highest: Last number to try.

    Returns:
        A number at which it holds, at most a tenth above one at which it does not; None if it does
        not hold at `highest`.
    """
    below, above = None, min(lowest, highest)
    while not holds(above):
        if above == highest:
            return None
        below, above = above, min(2 * above, highest)
    while below is not None and above > _PRECISION * below and above - below > 1:
        middle = round(math.sqrt(below * above))
        if middle in (below, above):
            break
        if holds(middle):
            above = middle
        else:
            below = middle
    return above
