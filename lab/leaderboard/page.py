"""The page of the leaderboard: Markdown between two markers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_token_compress.evaluation.statistics import Interval

from .figures import (
    FULL,
    TOLERANCE,
    Figures,
    cells_ahead,
    figures,
    mean_figures,
    within_budget,
    worst_cell,
)
from .results import Json, SubjectResults, collected, restored
from .rows import RATIOS, ROWS
from .subjects import Stream

START = "<!-- the tables; `python -m lab.leaderboard table` writes them -->"
END = "<!-- end of the tables -->"

_NOTHING = "–"


def write_page(page: Path, file: Path, default: str, answers: Path | None, stream: Stream) -> None:
    """Write the tables of a JSON file into a page.

    Args:
        page: The page, with both markers.
        file: The JSON file.
        default: Name of the row that others are compared with.
        answers: Folder of a run from which the JSON file is written first, if any.
        stream: Whose answers.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: There are no answers, or those of another stream, or the page has no markers.
    """
    if answers is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(collected(answers, stream), separators=(",", ":")) + "\n")
    results = json.loads(file.read_text())
    if results["stream"] != stream:
        raise ValueError(f"{str(file)!r} has the answers of the stream {results['stream']!r}.")
    text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{str(page)!r} lacks the markers {START} and {END}.")
    tables = markdown(results, default)
    page.write_text(f"{before}{START}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def markdown(results: Json, default: str) -> str:
    """All tables.

    Args:
        results: What `collected` made.
        default: Name of the row that others are compared with.

    Raises:
        ValueError: There are no answers.
    """
    subjects = [own for own in restored(results) if len(own.kinds)]
    if not subjects:
        raise ValueError("There are no answers yet: `python -m lab.leaderboard run` asks.")
    # Figures of every row, ratio and subject, None where there are none.
    found = {
        (row.name, ratio): [figures(subject, (row.name, ratio), default) for subject in subjects]
        for row in ROWS
        for ratio in RATIOS
    }
    parts = [
        f"Differences are to **{default}**, paired by question, with 95 % intervals.",
        "### Mean over models and sources",
        *_mean_table(subjects, found),
        "### The worst cell",
        "A cell is a kind of question of one model and source. Each row is compared with the "
        "better of `random` and `uniform`; intervals are corrected for the number of cells. "
        "*Behind* "
        f"counts the cells whose interval lies wholly below {100 * TOLERANCE:+.0f} points.",
        *_worst_table(subjects),
        "### Where a baseline is ahead",
        *_ahead_table(subjects, default),
    ]
    for place, subject in enumerate(subjects):
        own = {key: row[place] for key, row in found.items()}
        parts += [f"### {subject.model}, {subject.source}", *_subject_table(subject, own)]
    return "\n\n".join(parts)


def _mean_table(
    subjects: Sequence[SubjectResults], found: dict[tuple[str, float], list[Figures | None]]
) -> Iterator[str]:
    lines = []
    for row in ROWS:
        cells: list[str] = []
        for ratio in RATIOS:
            key = row.name, ratio
            pairs = zip(subjects, found[key], strict=True)
            mean = mean_figures(
                [own if own and within_budget(subject, key) else None for subject, own in pairs]
            )
            if mean is None:
                cells += [_NOTHING, _NOTHING]
            else:
                percent, difference = mean
                cells += [f"{percent:.1f}", _points(difference)]
        if any(cell != _NOTHING for cell in cells):
            lines.append([row.name, *cells])
    header = ["scorer"]
    for ratio in RATIOS:
        header += [f"{100 * ratio:g} %: of full", "difference"]
    yield (
        "Percent of the uncompressed model's right answers. Only for rows that were asked "
        "everywhere and keep no more tokens than the budget."
    )
    yield _table(header, lines)


def _subject_table(
    subject: SubjectResults, found: dict[tuple[str, float], Figures | None]
) -> Iterator[str]:
    full = subject.outcomes[FULL]
    asked, right = len(full.right), 100 * full.right.mean()
    yield (
        f"{asked} questions, {full.tokens:.0f} visual tokens; the uncompressed model answers "
        f"{right:.1f} % of them."
    )
    lines = []
    for row in ROWS:
        for ratio in RATIOS:
            own = found[row.name, ratio]
            if own is not None:
                lines.append(
                    [
                        row.name,
                        f"{100 * ratio:g} %",
                        f"{own.tokens:.0f}",
                        str(own.asked),
                        f"{100 * own.accuracy:.1f}",
                        _interval(own.percent_of_full, 1, ".1f"),
                        _points(own.difference),
                    ]
                )
    header = ["scorer", "kept", "tokens", "asked", "right", "percent of full", "difference"]
    yield _table(header, lines)


def _worst_table(subjects: Sequence[SubjectResults]) -> Iterator[str]:
    lines = []
    for row in ROWS:
        for ratio in RATIOS:
            worst = worst_cell(subjects, (row.name, ratio))
            if worst is not None:
                cell = worst.cell
                lines.append(
                    [
                        row.name,
                        f"{100 * ratio:g} %",
                        f"{cell.kind}, {cell.subject}",
                        f"{_points(cell.difference)} to {cell.against}",
                        f"{worst.behind} of {worst.cells}",
                    ]
                )
    yield _table(["scorer", "kept", "worst cell", "difference", "behind"], lines)


def _ahead_table(subjects: Sequence[SubjectResults], default: str) -> Iterator[str]:
    baselines = [row.name for row in ROWS if not row.ours]
    lines = []
    chance = 0
    for ratio in RATIOS:
        for cell in cells_ahead(subjects, (default, ratio), baselines):
            if cell.difference.low > 0:
                name = f"{cell.kind}, {cell.subject}"
                lines.append([f"{100 * ratio:g} %", name, cell.against, _points(cell.difference)])
            else:
                chance += 1
    yield (
        f"The baseline furthest ahead of {default} in each cell, where its interval excludes zero. "
        f"In {chance} more cells a baseline is ahead within its interval."
    )
    yield _table(["kept", "cell", "baseline", "ahead by"], lines)


def _points(difference: Interval | None) -> str:
    return _NOTHING if difference is None else _interval(difference, 100, "+.1f")


def _interval(interval: Interval, factor: int, form: str) -> str:
    value, low, high = (
        format(factor * own, form) for own in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)
