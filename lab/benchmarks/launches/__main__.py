"""Launches and synchronisations over the stock model's, counted without a GPU.

    python -m lab.benchmarks.launches
    python -m lab.benchmarks.launches --family vila --setting grid --batch 4 --lines

Each cell is "launches / synchronisations" of the forward of whole prompts, a quarter of the visual
tokens kept, less those of the stock forward. Models are narrow, with the heads of a 7B and two
decoder layers, in bfloat16 with SDPA; prompts of a batch differ in length. With `--lines`, every
line at which the host waits follows, with `--phases` the launches and synchronisations of each part
of the call.

An operation counts as one launch, however many kernels it has inside, and so does each launch of a
Triton kernel and each copy that the host does not wait for. Views do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from ...arguments import comma_list, make_parser
from .counting import SETTINGS, Counting, Counts
from .phases import PHASES
from .subjects import FAMILIES, TOKENS, make_subject

MODALITIES = ("image", "video")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` default to the command line's."""
    parser = make_parser("lab.benchmarks.launches", __doc__)
    parser.add_argument("--family", default="qwen2_vl", choices=FAMILIES, help="model family")
    axes: Sequence[tuple[str, Callable[[str], object], Sequence[object]]] = (
        ("--setting", str, SETTINGS),
        ("--batch", int, (1, 4)),
        ("--tokens", int, TOKENS),
        ("--modality", str, MODALITIES),
    )
    for flag, convert, values in axes:
        shown = ", ".join(map(str, values))
        parser.add_argument(
            flag,
            type=comma_list(convert),
            default=values,
            metavar="VALUES",
            help=f"between commas, by default {shown}",
        )
    parser.add_argument("--lines", action="store_true", help="name each line that waits")
    parser.add_argument("--phases", action="store_true", help="count each part of the call")
    options = parser.parse_args(arguments)

    columns: list[str] = []
    stock: list[Counts] = []
    rows: dict[str, list[Counts]] = {setting: [] for setting in options.setting}
    for modality in options.modality:
        for tokens in options.tokens:
            counting = Counting(make_subject(options.family, modality, tokens), modality)
            for batch in options.batch:
                columns.append(f"{modality} {tokens:,}, batch {batch}")
                stock.append(counting.prefill(None, batch))
                for setting, row in rows.items():
                    row.append(counting.prefill(setting, batch))
    console = Console(width=200)
    console.print(_table(options.family, columns, stock, rows))
    for setting, row in rows.items():
        for column, own in zip(columns, row, strict=True):
            if options.phases:
                console.print(f"\n{setting}, {column}: {_phases(own)}", highlight=False)
            if options.lines:
                console.print(f"\n{setting}, {column} waits {own.syncs} times:", highlight=False)
                for line, times in sorted(own.waits().items()):
                    console.print(f"  {times} x {line}", markup=False, highlight=False)


def _table(
    title: str, columns: Sequence[str], stock: Sequence[Counts], rows: dict[str, list[Counts]]
) -> Table:
    table = Table("", *columns, title=title)
    table.add_row("(stock)", *(f"{own.launches} / {own.syncs}" for own in stock))
    for setting, row in rows.items():
        cells = [
            f"{own.launches - base.launches:+} / {own.syncs - base.syncs:+}"
            for own, base in zip(row, stock, strict=True)
        ]
        table.add_row(setting, *cells)
    return table


def _phases(counts: Counts) -> str:
    found = counts.by_phase()
    return ", ".join(
        f"{phase} {found[phase, 'launch']} / {found[phase, 'sync']}"
        for phase in PHASES
        if found[phase, "launch"] or found[phase, "sync"]
    )


if __name__ == "__main__":
    main()
