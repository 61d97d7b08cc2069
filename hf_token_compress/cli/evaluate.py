"""`hf-token-compress evaluate`: accuracy by scorer and retention ratio."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..options import check_options
from ..training.options import CollectOptions
from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, notices, results
from .errors import CommandError, one_sentence_errors, stoppable, wrong_arguments
from .options import FRAMES, JsonFlag, Kinds, OutputFile, listed, takes
from .outputs import check_output, numbered_paths, write_json
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from ..data.metrics import MetricOption
    from ..data.sources import SampleSource
    from ..evaluation import Questions, RetentionResult, Sample
    from .checkpoint import CheckpointSource

_DEFAULT_SCORERS = ("truth", "attention", "uniform", "random")
_MOST_NAMED = 5
_WIDEST_SCORER, _UNLIMITED = 30, 10_000


@dataclass(frozen=True)
class EvaluateOptions:
    """What is measured, and on which questions."""

    scorer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": (
                'Scorers, separated by commas. "truth" keeps first what the answer depends on; '
                '"mapper:NAME" scores with the mapper of that folder or Hub id. By default '
                f'{", ".join(_DEFAULT_SCORERS)}; with --mapper, "mapper" too.'
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
    data: Path | None = field(
        default=None,
        metadata={
            "help": (
                'Your own questions: a file with one JSON object per line, with "image" (a path, '
                'or several) or "video" (a path, or several of frames), "question", "answer", and '
                'optionally "kind", "relevant_boxes" and "relevant_frames".'
            ),
            "metavar": "FILE",
        },
    )
    frames: int = field(default=8, metadata=FRAMES)
    batch_size: int = field(
        default=16,
        metadata={"help": "Samples that go through the model at once.", "interval": "[1, inf)"},
    )

    def __post_init__(self) -> None:
        check_options(self)


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(EvaluateOptions, "options")
@takes(CollectOptions, "answers", only=("metric",))
@takes(TokenCompressionConfig, "changes", only=("mapper",), built=False)
@takes(SceneOptions, "scenes", panel=SCENES, built=False)
def evaluate(
    model_options: ModelOptions,
    options: EvaluateOptions,
    answers: CollectOptions,
    changes: dict[str, Any],
    scenes: dict[str, Any],
    kind: Kinds = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table and nothing else.")
    ] = False,
    output: OutputFile = None,
    as_json: JsonFlag = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw accuracy against the share kept there; needs matplotlib.", metavar="FILE"
        ),
    ] = None,
) -> None:
    r"""Measure what answers keep of their accuracy, by scorer and retention ratio.

    The questions are your own (`--data`), or about images composed of drawings
    (`hf_token_compress.data.scenes`), which the tiny models know: each image shows one drawing
    per cell. With `--clip-frames` the questions are about clips.

    **Examples**

    ```
    hf-token-compress evaluate --model tiny-qwen2-vl
    hf-token-compress evaluate --scorer mapper,attention --retention-ratio 0.25 \
      --output table.json --plot curve.png
    hf-token-compress evaluate --model tiny-llava-onevision --clip-frames 4
    hf-token-compress evaluate --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl
    ```
    """
    # Everything that can be wrong is checked before the model is loaded.
    _check_outputs(markdown, as_json, output, plot)
    composed = scene_options(scenes, composed=options.data is None, clips="clip_frames" in scenes)
    mapper = changes.get("mapper")
    scorers = _scorers(options.scorer, mapper)
    source = find_checkpoint(model_options)
    if mapper is None and "mapper" in scorers:
        mapper = source.mapper.get("mapper")
    results = _Results({"model": source.options.model, "mapper": mapper})
    write = partial(_write, results, markdown=markdown, as_json=as_json, output=output, plot=plot)
    with stoppable(lambda: _kept(results, options.retention_ratio, write)):
        _measure(results, source, options, composed, listed(kind), scorers, answers.metric)
    write()


@dataclass
class _Results:
    """What is known so far, as a stopped run keeps it too.

    Attributes:
        about: What is evaluated, as JSON types.
        scorers: Scorers that are asked for.
        found: The results.
    """

    about: dict[str, Any]
    scorers: tuple[str, ...] = ()
    found: list[RetentionResult] = field(default_factory=list)


def _write(
    results: _Results,
    *,
    markdown: bool,
    as_json: bool,
    output: Path | None,
    plot: Path | None,
    stopped: bool = False,
) -> None:
    """Print the results, and write and draw them where that was asked for."""
    table = {
        **results.about,
        **({"stopped": True} if stopped else {}),
        "rows": as_rows(results.found),
    }
    if plot is not None:
        _draw(plot, table["model"], results.found)
    write_json(table, output)
    if as_json:
        typer.echo(json.dumps(table, ensure_ascii=False))
    else:
        _print(table["model"], results.found, markdown=markdown)


def _kept(results: _Results, ratios: Sequence[float], write: Callable[..., None]) -> str:
    """What a stopped run leaves."""
    if not results.found:
        return "No result was complete yet: nothing is kept."
    write(stopped=True)
    found = {(result.scorer, result.retention_ratio) for result in results.found}
    missing = [
        name for name in results.scorers if any((name, ratio) not in found for ratio in ratios)
    ]
    return (
        f"The {len(results.found)} results that were complete are above; others are missing for "
        f"{', '.join(missing)}: ask for those with --scorer."
    )


def _measure(
    results: _Results,
    source: CheckpointSource,
    options: EvaluateOptions,
    scenes: SceneOptions,
    kinds: tuple[str, ...],
    scorers: tuple[str, ...],
    metric: MetricOption,
) -> None:
    """Measure with all scorers at all ratios, and add the results one by one."""
    from ..data.sources import JsonLines

    own = None if options.data is None else JsonLines(options.data)
    samples: Sequence[Sample] = []
    if own is None:
        with wrong_arguments():
            samples = scenes.samples(kinds)
    checkpoint = load_checkpoint(source, TokenCompressionConfig())
    ratios = options.retention_ratio
    if own is None:
        results.about["seed"] = scenes.seed
    else:
        samples = questions = _read_questions(own, checkpoint.processor, kinds, options.frames)
        scorers = _scorers_for(questions, scorers, named=bool(options.scorer))
        left_out = [dataclasses.asdict(item) for item in questions.left_out]
        results.about |= {"data": str(options.data), "left_out": left_out}
    results.scorers = scorers
    passes = 1 + len(scorers) * len(ratios)
    with counting("Asking", passes * len(samples)) as done:
        from ..compression import uncompress
        from ..evaluation import measure_retention

        measure_retention(
            uncompress(checkpoint.model),
            checkpoint.processor,
            samples,
            scorers=scorers,
            retention_ratios=ratios,
            mapper=results.about["mapper"],
            metric=metric,
            batch_size=options.batch_size,
            after_batch=done,
            after_result=results.found.append,
        )


def _read_questions(
    source: SampleSource, processor: Any, kinds: Sequence[str], frames: int
) -> Questions:
    """The user's own questions; those that cannot be asked are counted and named on stderr."""
    from ..evaluation import Questions

    with counting("Reading", len(source)) as done:
        questions = Questions(source, processor, kinds=kinds, num_frames=frames, after_sample=done)
    if questions.left_out:
        named = [f"sample {item.number}, {item.reason}" for item in questions.left_out]
        more = "; …" if len(named) > _MOST_NAMED else ""
        text = (
            f"{len(named)} of {len(source)} questions are left out: "
            f"{'; '.join(named[:_MOST_NAMED])}{more}"
        )
        notices().print(Text(text, style="yellow"), soft_wrap=True)
    return questions


def _check_outputs(markdown: bool, as_json: bool, output: Path | None, plot: Path | None) -> None:
    if markdown and as_json:
        raise CommandError("--markdown and --json exclude each other.", exit_code=2)
    check_output(output)
    if plot is not None:
        from ..viz.figures import figure_class

        numbered_paths(plot, 1)
        figure_class()


def _scorers(given: Sequence[str], mapper: str | None) -> tuple[str, ...]:
    from ..evaluation.retention import TRUTH
    from ..scorers import available_scorers

    by_default = _DEFAULT_SCORERS if mapper is None else ("truth", "mapper", *_DEFAULT_SCORERS[1:])
    scorers = tuple(given) or by_default
    choices = (TRUTH, *available_scorers())
    for name in scorers:
        if name not in choices and not name.startswith("mapper:"):
            raise CommandError(
                f"There is no scorer {name!r}: choose one of {', '.join(choices)}.", exit_code=2
            )
    if mapper is not None and "mapper" not in scorers:
        raise CommandError(
            f"--mapper {mapper} is not used without the scorer mapper: add mapper to --scorer, or "
            "leave --mapper out.",
            exit_code=2,
        )
    return scorers


def _scorers_for(questions: Questions, scorers: tuple[str, ...], *, named: bool) -> tuple[str, ...]:
    """Without the scorer "truth", if it is not known what the answers depend on."""
    from ..evaluation.retention import TRUTH

    if questions.have_ground_truth or TRUTH not in scorers:
        return scorers
    if named:
        raise CommandError(
            f"The scorer {TRUTH} needs relevant_boxes in every sample of --data, on its one image "
            "or its frames: leave that scorer out.",
            exit_code=2,
        )
    return tuple(name for name in scorers if name != TRUTH)


def as_rows(found: Sequence[RetentionResult]) -> list[dict[str, Any]]:
    """Results as JSON types, the uncompressed model's first; "relative" is the share of its."""
    full = found[0]
    return [
        {
            "scorer": result.scorer or "full",
            "retention_ratio": result.retention_ratio,
            "kept_share": result.kept_share,
            **_accuracies(result, full, None),
            "kinds": {kind: _accuracies(result, full, kind) for kind in result.asked},
        }
        for result in found
    ]


def _accuracies(result: RetentionResult, full: RetentionResult, kind: str | None) -> dict[str, Any]:
    whole = full.accuracy(kind)
    return {
        "accuracy": result.accuracy(kind),
        "relative": result.accuracy(kind) / whole if whole > 0 else None,
        "standard_error": result.standard_error(kind),
        "asked": sum(result.asked.values()) if kind is None else result.asked[kind],
    }


def _draw(path: Path, model: str, found: Sequence[RetentionResult]) -> None:
    from ..viz import retention_curve, save_figure

    asked = sum(found[0].asked.values())
    title = f"{model}: {asked} questions, bars of one standard error"
    save_figure(retention_curve(found, title=title), path)


def _print(model: str, found: Sequence[RetentionResult], *, markdown: bool) -> None:
    from ..evaluation.retention import named_kinds, retention_markdown

    if markdown:
        typer.echo(retention_markdown(found))
        return
    console = results()
    console.print(Text(f"Right answers of {model}, in percent", style="italic"))
    for table in _tables(found, named_kinds(found[0]), console):
        console.print(table)
    asked = found[0].asked
    counts = ", ".join(f"{count} {kind}" for kind, count in asked.items())
    notices().print(f"Questions: {counts}; ± is one standard error.", style="dim")


def _tables(
    found: Sequence[RetentionResult], kinds: Sequence[str], console: Console
) -> list[Table]:
    """The results in one table, or in as many as the width of the console needs."""
    columns = [*kinds, None]
    unlimited = console.options.update(max_width=_UNLIMITED)
    for per_table in range(len(columns), 0, -1):
        starts = range(0, len(columns), per_table)
        tables = [_table(found, columns[start : start + per_table]) for start in starts]
        widths = [Measurement.get(console, unlimited, table).maximum for table in tables]
        if max(widths) <= console.width:
            break
    return tables


def _table(found: Sequence[RetentionResult], kinds: Sequence[str | None]) -> Table:
    """The results of some kinds of questions; None stands for all questions."""
    table = Table()
    table.add_column("Scorer", max_width=_WIDEST_SCORER, overflow="fold")
    for kind in ("Kept", *kinds):
        table.add_column(kind or "All", justify="right")
    for result in found:
        cells = [
            f"{100 * result.accuracy(kind):.1f}"
            + (f" ± {100 * result.standard_error():.1f}" if kind is None else "")
            for kind in kinds
        ]
        name = result.scorer or "(all visual tokens)"
        table.add_row(name, f"{result.kept_share:.0%}", *cells)
    return table
