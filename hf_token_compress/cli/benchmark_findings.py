"""What a benchmark found: tables, JSON and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from .benchmark_model import BenchmarkedModel
from .console import notices, results
from .outputs import write_json

if TYPE_CHECKING:
    from ..evaluation.speed import SpeedResult
    from ..evaluation.speed.tables import SpeedTable


@dataclass
class Findings:
    """What is known so far, as a stopped run keeps it too.

    Attributes:
        about: What is measured, and on what, as JSON types.
        notes: Sentences for the reader.
        results: The results.
        break_even: For each scorer and ratio, the visual tokens from which on it is faster.
    """

    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    results: list[SpeedResult] = field(default_factory=list)
    break_even: list[dict[str, Any]] = field(default_factory=list)

    def describe(
        self,
        model: Any,
        chosen: BenchmarkedModel,
        *,
        random_mapper: bool,
        batch_size: Sequence[int],
        new_tokens: int,
        repeats: int,
    ) -> None:
        """Note what is measured, and on what.

        Args:
            model: The loaded model.
            chosen: How it was chosen.
            random_mapper: Whether the scorer "mapper" has random weights.
            batch_size: Prompts per batch.
            new_tokens: Tokens to generate after the first.
            repeats: Measurements of each.
        """
        import torch
        import transformers

        from ..evaluation.speed.tables import depth_text

        on_gpu = model.device.type == "cuda"
        device = torch.cuda.get_device_name(model.device) if on_gpu else str(model.device)
        threads = torch.get_num_threads()
        dtype = str(model.dtype).removeprefix("torch.")
        attention = model.config.get_text_config()._attn_implementation
        self.about = {
            "model": chosen.name,
            "random_weights": chosen.random_weights,
            "mapper": "random weights" if random_mapper else chosen.mapper,
            "device": device,
            "threads": threads,
            "dtype": dtype,
            "attn_implementation": attention,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "depth": None if chosen.depth is None else asdict(chosen.depth),
            "batch_size": list(batch_size),
            "new_tokens": new_tokens,
            "repeats": repeats,
        }
        where = device if on_gpu else f"{device} ({threads} threads)"
        self.notes = [
            f"{chosen.name} on {where}, {dtype}, {attention}, torch {torch.__version__}, "
            f"Transformers {transformers.__version__}.",
            f"Medians of {repeats} repeats; ± is half the distance between the quartiles. The "
            "ideal is the uncompressed model on the kept tokens alone.",
        ]
        if scaled := depth_text(chosen.depth):
            self.notes.append(scaled)
        random = {"model": chosen.random_weights, "mapper": random_mapper}
        if nouns := [noun for noun, is_random in random.items() if is_random]:
            self.notes.append(
                f"Random weights ({' and '.join(nouns)}): fine for timing, not for accuracy."
            )


def write_findings(
    found: Findings,
    *,
    markdown: bool,
    as_json: bool,
    output: Path | None,
    plot: Path | None,
    stopped: bool = False,
) -> None:
    """Print what was found, and write and draw it where that was asked for."""
    summary = {
        **found.about,
        **({"stopped": True} if stopped else {}),
        "results": [result.to_dict() for result in found.results],
        "break_even": found.break_even,
    }
    write_json(summary, output)
    if plot is not None:
        from ..viz import save_figure, speed_curves

        save_figure(speed_curves(found.results), plot)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print(found, markdown=markdown)


def _print(found: Findings, *, markdown: bool) -> None:
    from ..evaluation.speed.tables import cost_tables, time_tables

    pairs = zip(time_tables(found.results), cost_tables(found.results), strict=True)
    tables = [table for pair in pairs for table in pair]
    lines = [_break_even_line(entry) for entry in found.break_even]
    if markdown:
        parts = [*found.notes, *(table.markdown() for table in tables)]
        parts += ["\n".join(f"- {line}" for line in lines)] if lines else []
        typer.echo("\n\n".join(parts))
        return
    console = results()
    for table in tables:
        console.print(_drawn(table))
    for line in lines:
        console.print(Text(line))
    for note in found.notes:
        notices().print(Text(note, style="dim"))


def _break_even_line(entry: Mapping[str, Any]) -> str:
    setting = f"{entry['scorer']} at {entry['retention_ratio']:.0%}"
    if entry["visual_tokens"] is None:
        return f"{setting}: not faster up to the longest prompt."
    return f"{setting}: faster from {entry['visual_tokens']:,} visual tokens on."


def _drawn(table: SpeedTable) -> Table:
    title = Text(table.title, style="italic")
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for number, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
