"""`hf-token-compress evaluate`: accuracy by scorer and retention ratio."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from .console import notices, quiet_libraries, results
from .errors import CommandError, one_sentence_errors
from .options import COMPRESSION_PANEL, DeviceOption, DtypeOption, ModelOption

if TYPE_CHECKING:
    from ..evaluation import RetentionResult

DEFAULT_SCORERS = ("truth", "attention", "uniform", "random")
DEFAULT_RATIOS = (0.5, 0.25, 0.1)


@one_sentence_errors
def evaluate(
    model: ModelOption = "tiny-qwen2-vl",
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="A scorer, or truth (what the answer truly rests on); may be repeated. "
            f"[default: {', '.join(DEFAULT_SCORERS)}]",
            metavar="NAME",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    retention_ratio: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the visual tokens to keep, in (0, 1]; may be repeated. "
            f"[default: {', '.join(map(str, DEFAULT_RATIOS))}]",
            metavar="RATIO",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of question; may be repeated. [default: all kinds]",
            metavar="KIND",
        ),
    ] = None,
    per_kind: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 300,
    rows: Annotated[int, typer.Option(min=1, help="Rows of drawings in a picture.")] = 4,
    columns: Annotated[int, typer.Option(min=1, help="Columns of drawings in a picture.")] = 4,
    clip_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Ask about clips of so many frames instead of pictures."),
    ] = None,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    r"""Measure what answers keep of their accuracy, by scorer and retention ratio.

    The questions are about pictures composed of drawings (`hf_token_compress.scenes`), which the
    tiny models know; each picture shows one drawing a cell.

    **Examples**

    ```
    hf-token-compress evaluate --model tiny-qwen2-vl
    hf-token-compress evaluate --scorer attention --retention-ratio 0.25 --per-kind 1000
    hf-token-compress evaluate --model tiny-llava-onevision --clip-frames 4
    ```
    """
    if markdown and as_json:
        raise CommandError("--markdown and --json exclude each other.", exit_code=2)

    from ..config import TokenCompressionConfig
    from ..evaluation import (
        clip_samples,
        measure_retention,
        retention_markdown,
        scene_samples,
    )
    from ..evaluation.retention import TRUTH
    from ..models import uncompress
    from ..scenes import CLIP_KINDS, KINDS, load_drawings
    from ..scorers import available_scorers
    from .checkpoint import find_checkpoint, load_checkpoint

    scorers = tuple(scorer or DEFAULT_SCORERS)
    ratios = tuple(retention_ratio or DEFAULT_RATIOS)
    for ratio in ratios:
        TokenCompressionConfig(retention_ratio=ratio)
    choices = (TRUTH, *available_scorers())
    for name in scorers:
        if name not in choices:
            raise CommandError(
                f"There is no scorer {name!r}: choose of {', '.join(choices)}.", exit_code=2
            )
    composed: dict[str, Any] = {
        "seed": seed,
        "rows": rows,
        "columns": columns,
        "drawings": None if drawings is None else load_drawings(drawings),
    }
    if clip_frames is None:
        samples = scene_samples(kind or KINDS, per_kind, **composed)
    else:
        samples = clip_samples(kind or CLIP_KINDS, per_kind, frames=clip_frames, **composed)
    checkpoint = load_checkpoint(
        find_checkpoint(model), TokenCompressionConfig(), dtype=dtype, device=device
    )
    passes = 1 + len(scorers) * len(ratios)
    with (
        quiet_libraries(progress_bars=False),
        Progress(
            SpinnerColumn(),
            TextColumn("Asking"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=notices(),
            transient=True,
        ) as progress,
    ):
        task = progress.add_task("", total=passes * len(samples))
        found = measure_retention(
            uncompress(checkpoint.model),
            checkpoint.processor,
            samples,
            scorers=scorers,
            retention_ratios=ratios,
            batch_size=batch_size,
            after_batch=lambda asked: progress.advance(task, asked),
        )
    if as_json:
        typer.echo(json.dumps({"model": model, "results": [_as_json(item) for item in found]}))
    elif markdown:
        typer.echo(retention_markdown(found))
    else:
        _print_table(model, found)


def _as_json(result: RetentionResult) -> dict[str, Any]:
    return {
        **dataclasses.asdict(result),
        "accuracy": result.accuracy(),
        "standard_error": result.standard_error(),
    }


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
