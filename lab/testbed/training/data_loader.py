"""Items of a dataset in order of the updates, made ahead by other processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset


class StepLoader:
    """Gives the item of every update, in order, from whichever update comes first.

    Args:
        items: A dataset whose items depend on their number alone.
        workers: Processes that make items ahead; 0 makes each when it is asked for.
    """

    def __init__(self, items: Dataset[Any], workers: int = 0) -> None:
        self._items = items
        self._workers = workers
        self._ahead: Iterator[Any] | None = None

    def __call__(self, step: int) -> Any:
        """The item of an update; after the first, updates follow one another."""
        if not self._workers:
            return self._items[step]
        if self._ahead is None:
            loader = DataLoader(
                self._items,
                batch_size=None,
                sampler=range(step, len(self._items)),  # type: ignore[arg-type]
                num_workers=self._workers,
                prefetch_factor=2,
            )
            self._ahead = iter(loader)
        return next(self._ahead)
