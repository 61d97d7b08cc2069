"""In which order everything is measured, so that a stopped run is useful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Group, Row
from .subjects import Subject

SWEEPS: tuple[tuple[tuple[Group, float], ...], ...] = (
    (("main", 0.25), ("main", 0.1), ("baseline", 0.25), ("baseline", 0.1), ("main", 0.5)),
    (("structured", 0.25), ("structured", 0.1), ("baseline", 0.5), ("structured", 0.5)),
)
"""Groups of rows and retention ratios that are asked together, the most important first."""


@dataclass(frozen=True)
class Task:
    """What one subject is asked together, so that an image is read and encoded once for all.

    Attributes:
        subject: The model and its questions.
        settings: Rows and retention ratios.
        questions: How many questions they are asked.
    """

    subject: Subject
    settings: tuple[tuple[Row, float], ...]
    questions: int

    @property
    def answers(self) -> int:
        """Answers that it needs, those of the uncompressed model included."""
        return self.questions * (1 + len(self.settings))


def schedule(
    subjects: Sequence[Subject], every: Sequence[Row], mapped: Sequence[Subject]
) -> Iterator[Task]:
    """All tasks.

    Args:
        subjects: Models and questions.
        every: The rows.
        mapped: Those that a mapper was trained for.
    """
    for sweep in SWEEPS:
        for subject in subjects:
            tasks: dict[int, list[tuple[Row, float]]] = {}
            for group, ratio in sweep:
                own = tasks.setdefault(subject.asked(group) * len(subject.kinds), [])
                own += [
                    (row, ratio)
                    for row in every
                    if row.group == group
                    and subject.takes(row, ratio)
                    and (row.scorer != "mapper" or subject in mapped)
                ]
            for questions, settings in tasks.items():
                if settings:
                    yield Task(subject, tuple(settings), questions)
