"""Load the items of a dataset in the order of the updates, ahead of time in other processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset


class StepLoader:
    """Returns the items of consecutive updates, starting at any update.

    Args:
        items: A dataset whose items depend on their number only.
        workers: Processes that prepare items; 0 prepares each item when it is needed.
    """

    def __init__(self, items: Dataset[Any], workers: int = 0) -> None:
        self._items = items
        self._workers = workers
        self._ahead: Iterator[Any] | None = None

    def __call__(self, step: int) -> Any:
        """The item of an update; calls after the first must be for consecutive updates."""
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
