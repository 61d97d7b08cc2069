"""Measure speed and memory over scorers, ratios, numbers of visual tokens and batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...compression import compress, uncompress
from ...compression.identity import identify
from ...config import DEFAULT_SCORER
from ...mapper import MapperConfig, RelevanceMapper
from .bench import PromptBench
from .prompts import sized_prompt
from .random_model import Depth
from .results import SpeedResult


def measure_speed(
    model: Any,
    processor: Any,
    *,
    scorers: Sequence[str] = (DEFAULT_SCORER,),
    retention_ratios: Sequence[float] = (0.5, 0.25, 0.1),
    visual_tokens: Sequence[int] = (500, 1500, 6000),
    batch_sizes: Sequence[int] = (1,),
    mapper: str | None = None,
    further: Mapping[str, Any] | None = None,
    new_tokens: int = 8,
    repeats: int = 5,
    depth: Depth | None = None,
    after_call: Callable[[int], None] | None = None,
    after_results: Callable[[list[SpeedResult]], None] | None = None,
) -> list[SpeedResult]:
    """Measure every scorer at every ratio, for every number of visual tokens and batch size.

    The stock model, each setting, and its ideal (the stock model on the kept tokens alone) take
    turns, so that other work on the machine slows all of them alike. Images are encoded once:
    times to the first token leave the vision part out. The model is given back uncompressed.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        scorers: Names of scorers; "mapper:NAME" scores with the mapper of that folder or Hub id.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        visual_tokens: Visual tokens of a prompt; the family's own numbers next to these are taken.
        batch_sizes: Prompts per batch.
        mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for; None for a
            network with random weights, which takes as long.
        further: Settings of all calls, such as `{"selection": "diverse"}`.
        new_tokens: Tokens to generate after the first.
        repeats: Measurements of each, after one to warm up.
        depth: If the model is shorter than the real one: times and the KV cache are scaled to the
            real depth, with the measured time of one layer.
        after_call: Called with 1 after each call of the model; there are `planned_calls` of them.
        after_results: Called with the results of each batch as soon as they are there.

    Returns:
        For each batch size and number of tokens, the uncompressed model's result, then one per
        scorer and ratio.

    Raises:
        MapperNotFoundError: There is no such mapper.
        TypeError, ValueError: There is no such scorer, or it does not fit the model.
    """
    found: list[SpeedResult] = []
    with compressible(model, scorers, mapper):
        for batch_size in batch_sizes:
            for wanted in visual_tokens:
                prompt = sized_prompt(model, processor, wanted, batch_size=batch_size)
                bench = PromptBench(model, prompt, depth=depth, after_call=after_call)
                for scorer in scorers:
                    for ratio in retention_ratios:
                        bench.add(scorer, {**call_setting(scorer, ratio), **(further or {})})
                results = bench.measure(repeats, new_tokens)
                found += results
                if after_results is not None:
                    after_results(results)
    return found


def planned_calls(settings: int, batches: int, repeats: int) -> int:
    """Calls of the model that `measure_speed` makes.

    Args:
        settings: Scorers times ratios.
        batches: Batch sizes times numbers of visual tokens.
        repeats: Measurements of each.
    """
    timed = 1 + repeats  # one to warm up
    vision_and_stock, setting_and_ideal, memory = 2, 2, 1 + settings
    return batches * (timed * (vision_and_stock + setting_and_ideal * settings) + memory)


def call_setting(scorer: str, retention_ratio: float) -> dict[str, Any]:
    """What a call inside `compressible` passes as `token_compression`."""
    setting: dict[str, Any] = {"retention_ratio": retention_ratio, "min_visual_tokens": 0}
    name, _, mapper = scorer.partition(":")
    if name != "mapper":
        setting["scorer"] = name
    elif mapper:  # the plain name stands for the mapper in use
        setting["mapper"] = mapper
    return setting


@contextmanager
def compressible(model: Any, scorers: Sequence[str], mapper: str | None) -> Iterator[None]:
    """Put compression on a model for the `with` block, with what the scorer "mapper" stands for.

    Args:
        model: An uncompressed model.
        scorers: Names of the scorers that calls will ask for.
        mapper: Folder or Hub id; None for a network with random weights.
    """
    compress(model, {"scorer": "uniform"} if mapper is None else {"mapper": mapper})
    try:
        if mapper is None and "mapper" in scorers:
            network = RelevanceMapper(MapperConfig(identify(model), network="grid"))
            model.token_compression.use_mapper(network.to(model.device).eval())
        yield
    finally:
        uncompress(model)
