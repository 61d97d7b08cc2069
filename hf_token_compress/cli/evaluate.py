"""`hf-token-compress evaluate`: accuracy by scorer and retention ratio."""

from __future__ import annotations

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
    ClipHoldOption,
    DeviceOption,
    DtypeOption,
    MapperOption,
    ModelOption,
    listed,
)
from .pictures import numbered_paths

if TYPE_CHECKING:
    from ..evaluation import RetentionResult

DEFAULT_SCORERS = ("truth", "attention", "uniform", "random")
DEFAULT_SCORERS_OF_A_MAPPER = ("truth", "mapper", "attention", "uniform", "random")
DEFAULT_RATIOS = (0.5, 0.25, 0.1)


@one_sentence_errors
def evaluate(
    model: ModelOption = "tiny-qwen2-vl",
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "--scorers",
            help="Scorers, separated by commas; truth is what the answer truly rests on, and "
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
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "--kinds",
            help="Kinds of questions, separated by commas. May be repeated. [default: all kinds]",
            metavar="KINDS",
        ),
    ] = None,
    per_kind: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 300,
    rows: Annotated[int, typer.Option(min=1, help="Rows of drawings in a picture.")] = 4,
    columns: Annotated[int, typer.Option(min=1, help="Columns of drawings in a picture.")] = 4,
    clip_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Ask about clips of so many boards instead of pictures."),
    ] = None,
    clip_hold: ClipHoldOption = 1,
    drawings: Annotated[
        Path | None,
        typer.Option(
            help="Folder with drawings other than those that come with the library.",
            metavar="FOLDER",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first picture.")] = 0,
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

    The questions are about images composed of drawings (`hf_token_compress.data.scenes`), which
    the tiny models know; each image shows one drawing a cell.

    **Examples**

    ```
    hf-token-compress evaluate --model tiny-qwen2-vl
    hf-token-compress evaluate --scorers mapper,attention --retention-ratios 0.25 \
      --json table.json --plot curve.png
    hf-token-compress evaluate --model tiny-llava-onevision --clip-frames 4
    hf-token-compress evaluate --model tiny-qwen2-vl-video --clip-frames 4 --clip-hold 2
    ```
    """
    if clip_hold > 1 and clip_frames is None:
        raise CommandError("--clip-hold is about clips: give --clip-frames too.", exit_code=2)
    if markdown and json_file == "-":
        raise CommandError("--markdown and --json - exclude each other.", exit_code=2)

    from ..compression import uncompress
    from ..config import TokenCompressionConfig
    from ..data.scenes import CLIP_KINDS, KINDS, check_kinds, load_drawings
    from ..evaluation import (
        clip_samples,
        measure_retention,
        retention_markdown,
        scene_samples,
    )
    from ..evaluation.retention import TRUTH
    from ..scorers import available_scorers
    from ..tiny import own_mapper
    from ..viz.figures import figure_class
    from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint

    scorers = listed(scorer or ()) or (
        DEFAULT_SCORERS if mapper is None else DEFAULT_SCORERS_OF_A_MAPPER
    )
    ratios = tuple(map(_ratio, listed(retention_ratio or ()))) or DEFAULT_RATIOS
    known_kinds = KINDS if clip_frames is None else CLIP_KINDS
    kinds = listed(kind or ()) or known_kinds
    check_kinds(kinds, known_kinds)
    for ratio in ratios:
        TokenCompressionConfig(retention_ratio=ratio)
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
    if plot is not None:
        numbered_paths(plot, 1)
        figure_class()  # before all the measurements, not after
    if json_file not in (None, "-") and not Path(str(json_file)).parent.is_dir():
        raise CommandError(f"There is no folder for {str(json_file)!r}.", exit_code=2)
    source = find_checkpoint(ModelOptions(model, dtype, device))
    if mapper is None and "mapper" in scorers:
        saved = source.saved_compression
        mapper = saved.mapper if saved and saved.mapper else own_mapper(model)
    composed: dict[str, Any] = {
        "seed": seed,
        "rows": rows,
        "columns": columns,
        "drawings": None if drawings is None else load_drawings(drawings),
    }
    if clip_frames is None:
        samples = scene_samples(kinds, per_kind, **composed)
    else:
        samples = clip_samples(kinds, per_kind, frames=clip_frames, hold=clip_hold, **composed)
    checkpoint = load_checkpoint(source, TokenCompressionConfig())
    passes = 1 + len(scorers) * len(ratios)
    with quiet_libraries(progress_bars=False), counting("Asking", passes * len(samples)) as done:
        found = measure_retention(
            uncompress(checkpoint.model),
            checkpoint.processor,
            samples,
            scorers=scorers,
            retention_ratios=ratios,
            mapper=mapper,
            batch_size=batch_size,
            after_batch=done,
        )
    if plot is not None:
        from ..viz import retention_curve, save_figure

        save_figure(retention_curve(found, title=_plot_title(model, found)), plot)
    if json_file is not None:
        table = {"model": model, "mapper": mapper, "seed": seed, "rows": as_rows(found)}
        if json_file == "-":
            typer.echo(json.dumps(table))
            return
        Path(json_file).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    if markdown:
        typer.echo(retention_markdown(found))
    else:
        _print_table(model, found)


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


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CommandError(f"{text!r} is no retention ratio.", exit_code=2) from None


def _print_table(model: str, found: Sequence[RetentionResult]) -> None:
    kinds = list(found[0].asked)
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
