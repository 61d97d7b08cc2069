"""The tables that `evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .console import notices, results

if TYPE_CHECKING:
    from ..evaluation import Evaluation, RetentionResult
    from ..evaluation.table import Row, TextTable

_NARROWEST_SCORER, _WIDEST_SCORER, _UNLIMITED = 10, 30, 10_000


def print_evaluation(
    model: str, evaluation: Evaluation, rows: Sequence[Row], *, markdown: bool
) -> None:
    """Print the tables: in Markdown and nothing else, or for a console."""
    from ..evaluation.retention import kind_title, named_kinds, retention_markdown

    found = evaluation.results
    tables = _tables(rows, labelled=evaluation.labelled)
    if markdown:
        typer.echo("\n\n".join([retention_markdown(found), *(own.markdown() for own in tables)]))
        return
    console = results()
    console.print(Text(f"{model}, {found[0].setting.name} and compressed", style="italic"))
    for own in tables:
        console.print(rich_table(own, console))
    if kinds := named_kinds(found[0]):
        for table in kinds_tables(found, kinds, console):
            console.print(table)
    asked = (f"{count} {kind_title(kind)}" for kind, count in found[0].asked.items())
    counted = ", ".join(asked) if kinds else str(len(found[0].samples))
    notices().print(f"Questions: {counted}.", style="dim")


def _tables(rows: Sequence[Row], *, labelled: bool) -> list[TextTable]:
    from ..evaluation.table import agreement_table, cost_table, downsampling_table

    measured = rows[0]["kl"] is not None or rows[0]["log_probability"] is not None
    shown = [cost_table(rows) if labelled else agreement_table(rows)]
    if labelled and measured:
        shown.append(agreement_table(rows))
    split = downsampling_table(rows)
    return shown if split is None else [*shown, split]


def rich_table(own: TextTable, console: Console) -> Table:
    """A table for a console; names of scorers are wrapped, and figures only where it is narrow."""
    least = _rich_table(own, widest_scorer=_NARROWEST_SCORER)
    unlimited = console.options.update(max_width=_UNLIMITED)
    narrow = Measurement.get(console, unlimited, least).maximum > console.width
    return _rich_table(own, wrap_figures=narrow)


def _rich_table(
    own: TextTable, *, widest_scorer: int | None = None, wrap_figures: bool = False
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=own.title, title_justify="left", pad_edge=False)
    first, *others = own.header
    table.add_column(first, overflow="fold", max_width=widest_scorer)
    for name in others:
        table.add_column(name, justify="right", overflow="fold", no_wrap=not wrap_figures)
    for row in own.rows:
        table.add_row(*row)
    return table


def kinds_tables(
    found: Sequence[RetentionResult], kinds: Sequence[str], console: Console
) -> list[Table]:
    """Right answers by kind in one table, or in as many as the width of the console needs."""
    unlimited = console.options.update(max_width=_UNLIMITED)
    for per_table in range(len(kinds), 0, -1):
        starts = range(0, len(kinds), per_table)
        tables = [_kinds_table(found, kinds[start : start + per_table]) for start in starts]
        widths = [Measurement.get(console, unlimited, table).maximum for table in tables]
        if max(widths) <= console.width:
            break
    return tables


def _kinds_table(found: Sequence[RetentionResult], kinds: Sequence[str]) -> Table:
    from ..evaluation.retention import kind_title

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("scorer", max_width=_WIDEST_SCORER, overflow="fold")
    for heading in ("kept", *map(kind_title, kinds)):
        table.add_column(heading, justify="right")
    for result in found:
        cells = [f"{100 * result.accuracy(kind):.1f}" for kind in kinds]
        table.add_row(result.setting.name, f"{result.kept_share:.0%}", *cells)
    return table
