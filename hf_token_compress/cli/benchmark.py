"""`hf-token-compress benchmark`: is compression faster on this machine, and from where on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import TokenCompressionConfig
from ..options import check_options
from .benchmark_findings import Findings, write_findings
from .benchmark_model import BenchmarkedModel, SizeOptions, find_model
from .checkpoint import ModelOptions
from .console import counting, working
from .errors import CommandError, one_sentence_errors, stoppable, wrong_arguments
from .options import JsonFlag, OutputFile, takes
from .outputs import check_output, numbered_paths

_DEFAULT_SCORERS = ("attention", "mapper")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured."""

    scorer: tuple[str, ...] = field(
        default=_DEFAULT_SCORERS,
        metadata={
            "help": (
                "Scorers, separated by commas. "
                '"mapper:NAME" scores with the mapper of that folder or Hub id; the plain "mapper" '
                "with the model's own, or else with random weights, which takes as long."
            ),
            "metavar": "NAMES",
        },
    )
    retention_ratio: tuple[float, ...] = field(
        default=(0.5, 0.25, 0.1),
        metadata={
            "help": "Shares of the visual tokens to keep, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "RATIOS",
        },
    )
    visual_tokens: tuple[int, ...] = field(
        default=(500, 1500, 6000),
        metadata={
            "help": (
                "Visual tokens of a prompt, separated by commas. Images are made so large that the "
                "model makes about as many."
            ),
            "interval": "[1, inf)",
            "metavar": "COUNTS",
        },
    )
    batch_size: tuple[int, ...] = field(
        default=(1,),
        metadata={
            "help": "Prompts per batch, separated by commas.",
            "interval": "[1, inf)",
            "metavar": "COUNTS",
        },
    )
    new_tokens: int = field(
        default=8, metadata={"help": "Tokens to generate after the first.", "interval": "[0, inf)"}
    )
    repeats: int = field(
        default=5,
        metadata={"help": "Measurements of each, after one to warm up.", "interval": "[1, inf)"},
    )
    break_even: bool = field(
        default=True,
        metadata={
            "help": (
                "Whether to look for the number of visual tokens from which on compression is "
                "faster, by bisection up to the largest of --visual-tokens."
            )
        },
    )

    def __post_init__(self) -> None:
        check_options(self)


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(SizeOptions, "sizes")
@takes(BenchmarkOptions, "options")
@takes(TokenCompressionConfig, "changes", only=("mapper",), built=False)
def benchmark(
    model_options: ModelOptions,
    sizes: SizeOptions,
    options: BenchmarkOptions,
    changes: dict[str, Any],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown tables and nothing else.")
    ] = False,
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
    # Everything that can be wrong is checked before the model is loaded.
    if markdown and as_json:
        raise CommandError("--markdown and --json exclude each other.", exit_code=2)
    check_output(output)
    if plot is not None:
        from ..viz.figures import figure_class

        numbered_paths(plot, 1)
        figure_class()
    _check_scorers(options.scorer)
    chosen = find_model(model_options, sizes, changes.get("mapper"))
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
        _measure(found, chosen, options)
    write()


def _check_scorers(names: Sequence[str]) -> None:
    from ..mapper import load_mappers
    from ..scorers import available_scorers

    for name in names:
        kind, _, mapper = name.partition(":")
        if kind not in available_scorers() or (mapper and kind != "mapper"):
            raise CommandError(
                f"There is no scorer {name!r}: choose one of {', '.join(available_scorers())}.",
                exit_code=2,
            )
        if mapper:
            with wrong_arguments():
                load_mappers(mapper)


def _measure(found: Findings, chosen: BenchmarkedModel, options: BenchmarkOptions) -> None:
    model, processor = chosen.load()
    from ..evaluation.speed import measure_speed
    from ..evaluation.speed.break_even import search_break_even
    from ..evaluation.speed.measure import call_setting, compressible, planned_calls

    scorers, ratios = options.scorer, options.retention_ratio
    found.describe(
        model,
        chosen,
        random_mapper=chosen.mapper is None and "mapper" in scorers,
        batch_size=options.batch_size,
        new_tokens=options.new_tokens,
        repeats=options.repeats,
    )
    batches = len(options.batch_size) * len(options.visual_tokens)
    calls = planned_calls(len(scorers) * len(ratios), batches, options.repeats)
    with counting("Measuring", calls) as done:
        measure_speed(
            model,
            processor,
            scorers=scorers,
            retention_ratios=ratios,
            visual_tokens=options.visual_tokens,
            batch_sizes=options.batch_size,
            mapper=chosen.mapper,
            new_tokens=options.new_tokens,
            repeats=options.repeats,
            depth=chosen.depth,
            after_call=done,
            after_results=found.results.extend,
        )
    if not options.break_even:
        return
    with compressible(model, scorers, chosen.mapper):
        for scorer in scorers:
            for ratio in ratios:
                with working(f"Looking from where on {scorer} at {ratio:.0%} is faster"):
                    count = search_break_even(
                        model,
                        processor,
                        call_setting(scorer, ratio),
                        batch_size=options.batch_size[0],
                        max_visual_tokens=max(options.visual_tokens),
                        repeats=options.repeats,
                        depth=chosen.depth,
                    )
                found.break_even.append(
                    {"scorer": scorer, "retention_ratio": ratio, "visual_tokens": count}
                )
