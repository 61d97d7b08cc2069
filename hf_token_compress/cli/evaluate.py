"""`hf-token-compress evaluate`: accuracy by scorer and retention ratio."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .console import counting, notices, quiet_libraries, results
from .errors import CommandError, one_sentence_errors
from .options import (
    COMPRESSION_PANEL,
    DeviceOption,
    DtypeOption,
    MapperOption,
    ModelOption,
    listed,
)
from .outputs import numbered_paths
from .questions import Boards, boards_of, read_questions

if TYPE_CHECKING:
    from ..evaluation import Questions, RetentionResult, Sample
    from .checkpoint import CheckpointSource

DEFAULT_SCORERS = ("truth", "attention", "uniform", "random")
DEFAULT_SCORERS_OF_A_MAPPER = ("truth", "mapper", "attention", "uniform", "random")
DEFAULT_RATIOS = (0.5, 0.25, 0.1)

_BOARDS_PANEL = "Composed questions, without --data"


@one_sentence_errors
def evaluate(
    model: ModelOption = "tiny-qwen2-vl",
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "--scorers",
            help="Scorers, separated by commas; truth keeps first what the answer depends on, and "
            "mapper:NAME scores with the mapper of that folder or Hub id. May be repeated. "
            f"[default: {', '.join(DEFAULT_SCORERS)}; with --mapper, mapper too]",
            metavar="NAMES",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    mapper: MapperOption = None,
    retention_ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--retention-ratio",
            "--retention-ratios",
            help="Shares of the visual tokens to keep, in (0, 1], separated by commas. May be "
            f"repeated. [default: {', '.join(map(str, DEFAULT_RATIOS))}]",
            metavar="RATIOS",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help='Your own questions: a file with one JSON object a line, with "image" (a path, or '
            'several) or "video" (a path, or several of frames), "question", "answer", and '
            'optionally "kind", "relevant_boxes" and "relevant_frames".',
            metavar="FILE",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --data, frames to take of each video file. [default: as the model's "
            "processor says]",
        ),
    ] = None,
    match: Annotated[
        str, typer.Option(help="Right answers: exact (but for case and a full stop) or contains.")
    ] = "exact",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "--kinds",
            help="Kinds of questions, separated by commas. May be repeated. [default: all kinds]",
            metavar="KINDS",
        ),
    ] = None,
    per_kind: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Questions of each kind. [default: {Boards.per_kind}]",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Rows of drawings in an image. [default: {Boards.rows}]",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Columns of drawings in an image. [default: {Boards.columns}]",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    clip_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ask about clips of so many boards instead of images.",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    clip_hold: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Frames for which a clip shows each of its boards. [default: {Boards.clip_hold}]",
            metavar="FRAMES",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    drawings: Annotated[
        Path | None,
        typer.Option(
            help="Folder with drawings other than those that come with the library.",
            metavar="FOLDER",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help=f"Seed of the first image. [default: {Boards.seed}]",
            rich_help_panel=_BOARDS_PANEL,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions a batch.")] = 32,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table and nothing else.")
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option("--json", help="Write a JSON object there; - prints it.", metavar="FILE"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw accuracy against the share kept there; needs matplotlib.", metavar="FILE"
        ),
    ] = None,
) -> None:
    r"""Measure what answers keep of their accuracy, by scorer and retention ratio.

    The questions are your own (`--data`), or about images composed of drawings
    (`hf_token_compress.data.scenes`), which the tiny models know: each image shows one drawing a
    cell.

    **Examples**

    ```
    hf-token-compress evaluate --model tiny-qwen2-vl
    hf-token-compress evaluate --scorers mapper,attention --retention-ratios 0.25 \
      --json table.json --plot curve.png
    hf-token-compress evaluate --model tiny-llava-onevision --clip-frames 4
    hf-token-compress evaluate --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl
    ```
    """
    boards = boards_of(
        {
            "per_kind": per_kind,
            "rows": rows,
            "columns": columns,
            "clip_frames": clip_frames,
            "clip_hold": clip_hold,
            "drawings": drawings,
            "seed": seed,
        },
        data,
        frames,
    )
    _check_outputs(markdown, json_file, plot)
    if match not in ("exact", "contains"):
        raise CommandError(f"--match is exact or contains, not {match!r}.", exit_code=2)

    from ..config import TokenCompressionConfig
    from ..data.sources import JsonLines
    from .checkpoint import find_checkpoint, load_checkpoint

    # Everything that can be wrong is checked before the model is loaded.
    scorers, ratios, kinds = _scorers(scorer, mapper), _ratios(retention_ratio), listed(kind)
    source = find_checkpoint(model)
    if mapper is None and "mapper" in scorers:
        mapper = _mapper_of(source)
    own = None if data is None else JsonLines(data)
    samples: Sequence[Sample] = [] if own is not None else boards.questions(kinds)
    checkpoint = load_checkpoint(source, TokenCompressionConfig(), dtype=dtype, device=device)
    about: dict[str, Any] = {"model": model, "mapper": mapper, "seed": boards.seed}
    if own is not None:
        questions = read_questions(own, checkpoint.processor, kinds, frames)
        scorers = _scorers_for(questions, scorers, named=bool(scorer))
        samples = questions
        left_out = [dataclasses.asdict(item) for item in questions.left_out]
        about = {"model": model, "mapper": mapper, "data": str(data), "left_out": left_out}
    passes = 1 + len(scorers) * len(ratios)
    with quiet_libraries(progress_bars=False), counting("Asking", passes * len(samples)) as done:
        from ..compression import uncompress
        from ..evaluation import measure_retention

        found = measure_retention(
            uncompress(checkpoint.model),
            checkpoint.processor,
            samples,
            scorers=scorers,
            retention_ratios=ratios,
            mapper=mapper,
            match="contains" if match == "contains" else "exact",
            batch_size=batch_size,
            after_batch=done,
        )
    _write(about, found, markdown=markdown, json_file=json_file, plot=plot)


def _check_outputs(markdown: bool, json_file: str | None, plot: Path | None) -> None:
    """Raise before all the measurements, not after, if results cannot be written."""
    if markdown and json_file == "-":
        raise CommandError("--markdown and --json - exclude each other.", exit_code=2)
    if plot is not None:
        from ..viz.figures import figure_class

        numbered_paths(plot, 1)
        figure_class()
    if json_file not in (None, "-") and not Path(str(json_file)).parent.is_dir():
        raise CommandError(f"There is no folder for {str(json_file)!r}.", exit_code=2)


def _scorers(given: list[str] | None, mapper: str | None) -> tuple[str, ...]:
    from ..evaluation.retention import TRUTH
    from ..scorers import available_scorers

    default = DEFAULT_SCORERS if mapper is None else DEFAULT_SCORERS_OF_A_MAPPER
    scorers = listed(given) or default
    choices = (TRUTH, *available_scorers())
    for name in scorers:
        if name not in choices and not name.startswith("mapper:"):
            raise CommandError(
                f"There is no scorer {name!r}: choose of {', '.join(choices)}.", exit_code=2
            )
    if mapper is not None and "mapper" not in scorers:
        raise CommandError(
            f"--mapper {mapper} scores nothing without the scorer mapper: add mapper to --scorers, "
            "or leave --mapper out.",
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


def _ratios(given: list[str] | None) -> tuple[float, ...]:
    from ..config import TokenCompressionConfig

    ratios = tuple(map(_ratio, listed(given))) or DEFAULT_RATIOS
    for ratio in ratios:
        TokenCompressionConfig(retention_ratio=ratio)
    return ratios


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a retention ratio.", exit_code=2) from None


def _mapper_of(source: CheckpointSource) -> str | None:
    """The mapper that is saved with the model or comes with it, if any."""
    from ..tiny import own_mapper

    saved = source.saved_compression
    return saved.mapper if saved and saved.mapper else own_mapper(source.name)


def _write(
    about: dict[str, Any],
    found: Sequence[RetentionResult],
    *,
    markdown: bool,
    json_file: str | None,
    plot: Path | None,
) -> None:
    """Plot, JSON and table, as far as they are wanted."""
    if plot is not None:
        from ..viz import retention_curve, save_figure

        save_figure(retention_curve(found, title=_plot_title(about["model"], found)), plot)
    if json_file is not None:
        table = {**about, "rows": as_rows(found)}
        if json_file == "-":
            typer.echo(json.dumps(table))
            return
        Path(json_file).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    if markdown:
        from ..evaluation import retention_markdown

        typer.echo(retention_markdown(found))
    else:
        _print_table(about["model"], found)


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


def _plot_title(model: str, found: Sequence[RetentionResult]) -> str:
    asked = sum(found[0].asked.values())
    return f"{model}: {asked} questions, bars of one standard error"


def _print_table(model: str, found: Sequence[RetentionResult]) -> None:
    from ..evaluation.retention import named_kinds

    kinds = named_kinds(found[0])
    table = Table(title=f"Right answers of {model}, in percent")
    table.add_column("Scorer")
    for heading in ("Kept", *kinds, "All"):
        table.add_column(heading, justify="right")
    for result in found:
        table.add_row(
            result.scorer or "(all visual tokens)",
            f"{result.kept_share:.0%}",
            *(f"{100 * result.accuracy(kind):.1f}" for kind in kinds),
            f"{100 * result.accuracy():.1f} ± {100 * result.standard_error():.1f}",
        )
    results().print(table)
    asked = found[0].asked
    counts = ", ".join(f"{count} {kind}" for kind, count in asked.items())
    notices().print(f"Questions: {counts}; ± is one standard error.", style="dim")
