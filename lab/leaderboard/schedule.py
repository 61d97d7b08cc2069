"""In which order everything is measured, so that a stopped run is useful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Group, Row
from .subjects import Subject

PHASES: tuple[tuple[Group, float], ...] = (
    ("main", 0.25),
    ("main", 0.1),
    ("baseline", 0.25),
    ("baseline", 0.1),
    ("main", 0.5),
    ("structured", 0.25),
    ("structured", 0.1),
    ("baseline", 0.5),
    ("structured", 0.5),
)
"""Groups of rows and retention ratios, the most important first."""


@dataclass(frozen=True)
class Task:
    """Some rows of one subject with one ratio.

    Attributes:
        subject: The model and its questions.
        rows: The rows.
        ratio: The retention ratio.
        questions: How many questions they are asked.
    """

    subject: Subject
    rows: tuple[Row, ...]
    ratio: float
    questions: int

    @property
    def answers(self) -> int:
        """Answers that it needs, those of the uncompressed model included."""
        return self.questions * (1 + len(self.rows))


def schedule(
    subjects: Sequence[Subject], every: Sequence[Row], mapped: Sequence[Subject]
) -> Iterator[Task]:
    """All tasks; in each phase, subjects take turns.

    Args:
        subjects: Models and questions.
        every: The rows.
        mapped: Those that a mapper was trained for.
    """
    for group, ratio in PHASES:
        for subject in subjects:
            rows = tuple(
                row
                for row in every
                if row.group == group
                and subject.takes(row, ratio)
                and (row.scorer != "mapper" or subject in mapped)
            )
            if rows:
                questions = subject.asked(group) * len(subject.kinds)
                yield Task(subject, rows, ratio, questions)
