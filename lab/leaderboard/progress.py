"""How much is done, and how long the rest takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from .schedule import Task

_EVERY = 30.0
"""Seconds between two lines."""


class TimeUpError(Exception):
    """The time that a run may take is over."""


class Progress:
    """Counts answers and prints a line now and then.

    Args:
        tasks: All that is to be done.
        limit: Seconds after which to stop; None for no limit.
    """

    def __init__(self, tasks: Sequence[Task], limit: float | None) -> None:
        self._left = {id(task): task.answers for task in tasks}
        self._tasks = tasks
        self._spent: dict[str, tuple[float, int]] = {}  # seconds and answers, by subject
        self._start = self._last = self._shown = time.monotonic()
        self._limit = limit

    def start(self) -> None:
        """Count time from here on, after a model was loaded."""
        self._last = time.monotonic()

    def known(self, task: Task, count: int) -> None:
        """Count answers of an earlier run."""
        self._left[id(task)] -= count

    def answered(self, task: Task, count: int) -> None:
        """Count new answers, which are saved.

        Raises:
            TimeUpError: The limit is reached.
        """
        self._left[id(task)] -= count
        now = time.monotonic()
        seconds, answers = self._spent.get(task.subject.name, (0.0, 0))
        self._spent[task.subject.name] = seconds + now - self._last, answers + count
        self._last = now
        if now - self._shown > _EVERY:
            self.show(task)
        if count and self._limit is not None and now - self._start > self._limit:
            raise TimeUpError

    def show(self, task: Task) -> None:
        """Print a line."""
        self._shown = time.monotonic()
        total, left = sum(own.answers for own in self._tasks), sum(self._left.values())
        print(
            f"{task.subject.name}, {task.questions:,} questions: {total - left:,} of {total:,} "
            f"answers, {self.hours_left():.1f} h left",
            file=sys.stderr,
            flush=True,
        )

    def hours_left(self) -> float:
        """Estimate from the time that each subject's answers took so far."""
        rates = self.seconds_per_answer()
        usual = sum(rates.values()) / len(rates) if rates else 0.0
        seconds = sum(
            self._left[id(task)] * rates.get(task.subject.name, usual) for task in self._tasks
        )
        return seconds / 3600

    def seconds_per_answer(self) -> dict[str, float]:
        """For each subject that was asked anything."""
        return {name: seconds / n for name, (seconds, n) in self._spent.items() if n}
