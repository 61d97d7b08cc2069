"""The figures of the table, from right and wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_token_compress.evaluation.statistics import (
    Interval,
    paired_difference,
    percent_of_full,
)

from .results import RowKey, SubjectResults
from .rows import FULL_ROW

FULL: RowKey = (FULL_ROW, 1.0)
CONTROLS = ("random", "uniform")
"""The rows that no cell of a good row falls behind."""
TOLERANCE = -0.03
"""Difference from which on a cell counts as fallen behind."""

_SPARE = 1.1
"""Tokens of the budget that down-sampled images may have."""


@dataclass(frozen=True)
class Figures:
    """One row with one ratio, on one subject.

    Attributes:
        asked: Number of questions.
        tokens: Visual tokens that the language model saw, on average.
        accuracy: Share of right answers.
        percent_of_full: The same in percent of the uncompressed model's on these questions.
        difference: Accuracy minus that of the default; None for the default, or without it.
    """

    asked: int
    tokens: float
    accuracy: float
    percent_of_full: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Cell:
    """The questions of one kind of one subject, with two rows.

    Attributes:
        subject: Name of the model and source.
        kind: Kind of the questions.
        against: The row that is compared with.
        difference: Accuracy minus that row's.
    """

    subject: str
    kind: str
    against: str
    difference: Interval


@dataclass(frozen=True)
class WorstCell:
    """The cell in which a row is furthest behind the better of the controls.

    Attributes:
        cell: That cell; its interval is corrected for the number of cells (Bonferroni).
        cells: How many cells there are.
        behind: In how many of them the corrected interval lies wholly below `TOLERANCE`.
    """

    cell: Cell
    cells: int
    behind: int


def figures(subject: SubjectResults, key: RowKey, default: str) -> Figures | None:
    """The figures of a row on one subject, or None if it was not asked."""
    if key not in subject.outcomes:
        return None
    own = subject.outcomes[key]
    difference = None
    if key[0] != default:
        difference = _difference(subject, (default, key[1]), key)
    full, right, images = _common(subject, FULL, key)
    return Figures(
        asked=len(right),
        tokens=own.tokens,
        accuracy=float(right.mean()),
        percent_of_full=percent_of_full(full, right, clusters=images),
        difference=difference,
    )


def within_budget(subject: SubjectResults, key: RowKey) -> bool:
    """Whether a row keeps about as few tokens as it should.

    Down-sampled images do not where the processor resizes all of them to one size.
    """
    budget = key[1] * subject.outcomes[FULL].tokens
    return subject.outcomes[key].tokens <= max(_SPARE * budget, budget + 1)


def mean_figures(found: Sequence[Figures | None]) -> tuple[float, Interval | None] | None:
    """Mean percent of full over subjects, and mean difference to the default.

    Each subject counts the same. Their questions are independent, so the half-widths of their
    intervals add up as squares. None if the row is missing on one of them.
    """
    there = [own for own in found if own is not None]
    if not there or len(there) < len(found):
        return None
    percent = sum(own.percent_of_full.value for own in there) / len(there)
    differences = [own.difference for own in there if own.difference is not None]
    if len(differences) < len(there):
        return percent, None
    value = sum(own.value for own in differences) / len(differences)
    low, high = (
        float(np.sqrt(sum((end(own) - own.value) ** 2 for own in differences))) / len(differences)
        for end in (lambda own: own.low, lambda own: own.high)
    )
    return percent, Interval(value, value - low, value + high)


def worst_cell(subjects: Sequence[SubjectResults], key: RowKey) -> WorstCell | None:
    """Where a row is furthest behind the better of the controls, or None where it was not asked."""
    cells = [
        (subject, kind)
        for subject in subjects
        if key in subject.outcomes and all((own, key[1]) in subject.outcomes for own in CONTROLS)
        for kind in dict.fromkeys(subject.kinds.tolist())
    ]
    found = []
    for subject, kind in cells:
        better = max(CONTROLS, key=lambda own: _accuracy(subject, (own, key[1]), kind))
        confidence = 1 - 0.05 / len(cells)
        difference = _difference(subject, (better, key[1]), key, kind, confidence)
        if difference is not None:
            found.append(Cell(subject.name, kind, better, difference))
    if not found:
        return None
    behind = sum(own.difference.high < TOLERANCE for own in found)
    return WorstCell(min(found, key=lambda own: own.difference.value), len(found), behind)


def cells_ahead(
    subjects: Sequence[SubjectResults], default: RowKey, baselines: Sequence[str]
) -> Iterator[Cell]:
    """For each cell in which baselines are ahead of the default, the one furthest ahead."""
    for subject in subjects:
        for kind in dict.fromkeys(subject.kinds.tolist()):
            found = []
            for baseline in baselines:
                key = baseline, default[1]
                if key not in subject.outcomes or not within_budget(subject, key):
                    continue
                difference = _difference(subject, default, key, kind)
                if difference is not None and difference.value > 0:
                    found.append(Cell(subject.name, kind, baseline, difference))
            if found:
                yield max(found, key=lambda own: own.difference.value)


def _difference(
    subject: SubjectResults,
    first: RowKey,
    second: RowKey,
    kind: str | None = None,
    confidence: float = 0.95,
) -> Interval | None:
    """Accuracy of the second row minus that of the first, on the questions that both were asked."""
    if first not in subject.outcomes or second not in subject.outcomes:
        return None
    one, other, images = _common(subject, first, second, kind)
    if not len(one):
        return None
    return paired_difference(one, other, clusters=images, confidence=confidence)


def _common(
    subject: SubjectResults, first: RowKey, second: RowKey, kind: str | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[int]]:
    """Right answers of two rows to the questions that both were asked, and the images of these."""
    one, other = subject.outcomes[first].right, subject.outcomes[second].right  # [N] each
    common = ~np.isnan(one) & ~np.isnan(other)
    if kind is not None:
        common &= subject.kinds == kind
    return one[common], other[common], subject.images[common].tolist()


def _accuracy(subject: SubjectResults, key: RowKey, kind: str) -> float:
    return float(np.nanmean(subject.outcomes[key].right[subject.kinds == kind]))
