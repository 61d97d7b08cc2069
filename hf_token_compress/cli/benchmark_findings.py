"""What a benchmark found: tables, JSON and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from .benchmark_model import BenchmarkedModel
from .benchmark_options import BenchmarkOptions
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
        out_of_memory: Whether the device had not enough memory for all of it.
    """

    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    results: list[SpeedResult] = field(default_factory=list)
    break_even: list[dict[str, Any]] = field(default_factory=list)
    out_of_memory: bool = False

    def describe(
        self,
        model: Any,
        chosen: BenchmarkedModel,
        options: BenchmarkOptions,
        further: Mapping[str, Any],
    ) -> None:
        """Note what is measured, and on what.

        Args:
            model: The loaded model.
            chosen: How it was chosen.
            options: What is measured.
            further: Settings of all calls.
        """
        from ..compression.report import count_text
        from ..evaluation.speed import depth_text

        random_mapper = chosen.mapper is None and "mapper" in options.scorer
        self.about = {
            "model": chosen.name,
            "random_weights": chosen.random_weights,
            "mapper": "random weights" if random_mapper else chosen.mapper,
            **_machine(model),
            "depth": None if chosen.depth is None else asdict(chosen.depth),
            "batch_size": list(options.batch_size),
            "new_tokens": options.new_tokens,
            "repeats": options.repeats,
            **further,
        }
        self.notes = [
            f"{chosen.name} on {_machine_text(self.about)}.",
            f"Medians of {count_text(options.repeats, 'repeat')}; ± is half the distance between "
            "the quartiles. The ideal is the uncompressed model on the kept tokens alone.",
        ]
        if scaled := depth_text(chosen.depth):
            self.notes.append(scaled)
        random = {"model": chosen.random_weights, "mapper": random_mapper}
        if nouns := [noun for noun, is_random in random.items() if is_random]:
            self.notes.append(
                f"Random weights ({' and '.join(nouns)}): fine for timing, not for accuracy."
            )


def _machine(model: Any) -> dict[str, Any]:
    """What computes, and with what: JSON types."""
    import torch
    import transformers

    on_gpu = model.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(model.device) if on_gpu else str(model.device),
        "threads": None if on_gpu else torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": model.config.get_text_config()._attn_implementation,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _machine_text(about: Mapping[str, Any]) -> str:
    from ..compression.report import count_text

    threads = about["threads"]
    on_cpu = "" if threads is None else f" with {count_text(threads, 'thread')}"
    return (
        f"{about['device']}{on_cpu}, {about['dtype']}, {about['attn_implementation']}, "
        f"torch {about['torch']}, Transformers {about['transformers']}"
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
        **({"stopped": True} if stopped or found.out_of_memory else {}),
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
        side: Any = "right" if number else "left"
        drawn.add_column(heading, justify=side, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
