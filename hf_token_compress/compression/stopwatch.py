"""Time blocks of code, including the work they queue on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the milliseconds of the blocks that it measures on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.milliseconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the `with` block."""
        start = self._now()
        yield
        self.milliseconds += (self._now() - start) * 1000.0

    def _now(self) -> float:
        if self._device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()
