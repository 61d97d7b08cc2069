"""Compiled decoding with a static cache has as many graphs and graph breaks as the stock model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import _dynamo as dynamo
from torch._dynamo.utils import counters
from transformers import CompileConfig

from ..outcome import failure, report
from ..random_models import RANDOM, Family, compressed


def problems() -> Iterator[str]:
    """Count what Dynamo makes of eight tokens, with and without `fullgraph`."""
    for name, family in RANDOM.items():
        for whole in (False, True):
            expected = _graphs_and_breaks(family, None, whole)
            for ratio in (1.0, 0.5):
                found = _graphs_and_breaks(family, ratio, whole)
                if found != expected:
                    yield f"{name} at {ratio}, fullgraph={whole}: {found}, stock {expected}"


def _graphs_and_breaks(family: Family, ratio: float | None, whole: bool) -> Any:
    dynamo.reset()
    counters.clear()
    model, inputs, graphs = compressed(family.model(), ratio), family.inputs(), 0

    def backend(module: torch.fx.GraphModule, example_inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module.forward

    config = CompileConfig(fullgraph=whole, backend=backend, mode=None)
    config._compile_all_devices = True
    try:
        model.generate(
            **inputs,
            max_new_tokens=8,
            cache_implementation="static",
            compile_config=config,
            do_sample=False,
        )
    except Exception as error:
        return failure(error)
    return f"{graphs} graphs, {sum(counters['graph_break'].values())} breaks"


if __name__ == "__main__":
    report(problems)
