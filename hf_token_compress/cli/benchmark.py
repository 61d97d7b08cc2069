"""`hf-token-compress benchmark`: is compression faster on this machine, and from where on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import TokenCompressionConfig
from .benchmark_findings import Findings, write_findings
from .benchmark_model import BenchmarkedModel, SizeOptions, find_model
from .benchmark_options import BenchmarkOptions
from .checkpoint import ModelOptions
from .console import counting, working
from .errors import CommandError, one_sentence_errors, stoppable
from .options import JsonFlag, MarkdownFlag, OutputFile, takes
from .outputs import Outputs


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(SizeOptions, "sizes")
@takes(BenchmarkOptions, "options")
@takes(TokenCompressionConfig, "changes", only=("mapper", "selection"), built=False)
def benchmark(
    model_options: ModelOptions,
    sizes: SizeOptions,
    options: BenchmarkOptions,
    changes: dict[str, Any],
    markdown: MarkdownFlag = False,
    output: OutputFile = None,
    as_json: JsonFlag = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the time to the first token; needs matplotlib.", metavar="FILE"),
    ] = None,
) -> None:
    r"""Measure what compression saves on this machine, and from how many visual tokens on.

    The uncompressed model, every setting, and its ideal (the uncompressed model on the kept tokens
    alone) take turns: ratios between them hold on a machine that does other work too.

    **Examples**

    ```
    hf-token-compress benchmark --model tiny-qwen2-vl --visual-tokens 64,256
    hf-token-compress benchmark --model Qwen/Qwen2-VL-2B-Instruct --dtype float16 --plot speed.png
    hf-token-compress benchmark --model qwen2-vl-7b --random-weights --layers 2 --vision-layers 1
    ```
    """
    Outputs(markdown, as_json, output, plot).check()
    mapper = changes.pop("mapper", None)
    options.check_scorers(mapper)
    chosen = find_model(model_options, sizes, mapper)
    found = Findings()
    write = partial(
        write_findings, found, markdown=markdown, as_json=as_json, output=output, plot=plot
    )

    def kept() -> str:
        if not found.results:
            return "No batch of prompts was complete yet: nothing is kept."
        write(stopped=True)
        return "The batches of prompts that were complete are above."

    with stoppable(kept):
        _measure(found, chosen, options, changes)
    write()


def _measure(
    found: Findings, chosen: BenchmarkedModel, options: BenchmarkOptions, further: dict[str, Any]
) -> None:
    model, processor = chosen.load()
    from ..evaluation.speed import measure_speed
    from ..evaluation.speed.break_even import search_break_even
    from ..evaluation.speed.measure import call_setting, compressible, planned_calls

    scorers, ratios = options.scorer, options.retention_ratio
    found.describe(model, chosen, options, further)
    batches = len(options.batch_size) * len(options.visual_tokens)
    calls = planned_calls(len(scorers) * len(ratios), batches, options.repeats)
    with counting("Measuring", calls) as done, _enough_memory(found):
        measure_speed(
            model,
            processor,
            scorers=scorers,
            retention_ratios=ratios,
            visual_tokens=options.visual_tokens,
            batch_sizes=options.batch_size,
            mapper=chosen.mapper,
            further=further,
            new_tokens=options.new_tokens,
            repeats=options.repeats,
            depth=chosen.depth,
            after_call=done,
            after_results=found.results.extend,
        )
    if not options.break_even or found.out_of_memory:
        return
    with compressible(model, scorers, chosen.mapper):
        for scorer in scorers:
            for ratio in ratios:
                with working(f"Looking from where on {scorer} at {ratio:.0%} is faster"):
                    count = search_break_even(
                        model,
                        processor,
                        {**call_setting(scorer, ratio), **further},
                        batch_size=options.batch_size[0],
                        max_visual_tokens=max(options.visual_tokens),
                        repeats=options.repeats,
                        depth=chosen.depth,
                    )
                found.break_even.append(
                    {"scorer": scorer, "retention_ratio": ratio, "visual_tokens": count}
                )


@contextmanager
def _enough_memory(found: Findings) -> Iterator[None]:
    """Keep what was measured before the device's memory was full.

    Raises:
        CommandError: Nothing was.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        text = "ask for fewer --visual-tokens, a smaller --batch-size or fewer --layers."
        if not found.results:
            raise CommandError(f"The device has not enough memory: {text}") from error
        found.out_of_memory = True
        found.notes.append(f"The device had not enough memory for what is missing: {text}")
