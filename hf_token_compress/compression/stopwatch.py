"""Time blocks of code, including the work they queue on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

# One for all, so that reports can be copied and pickled.
_READING = Lock()


class Stopwatch:
    """Adds up the milliseconds of the blocks that it measures on one device.

    On an accelerator, a block is timed by events on the device, and nothing waits for it until
    somebody asks for the milliseconds.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._milliseconds = 0.0
        self._blocks: list[tuple[torch.Event, torch.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the `with` block."""
        if self._device.type in ("cpu", "meta"):
            start = time.perf_counter()
            yield
            self._milliseconds += (time.perf_counter() - start) * 1000.0
            return
        begin = torch.Event(self._device, enable_timing=True)
        end = torch.Event(self._device, enable_timing=True)
        begin.record(torch.accelerator.current_stream(self._device))
        yield
        end.record(torch.accelerator.current_stream(self._device))
        self._blocks.append((begin, end))

    @property
    def is_done(self) -> bool:
        """Whether the device has finished all blocks, so that nobody waits for it."""
        return all(end.query() for _, end in self._blocks)

    @property
    def milliseconds(self) -> float:
        """Of all blocks; waits for the device to finish them."""
        with _READING:
            for begin, end in self._blocks:
                end.synchronize()
                self._milliseconds += begin.elapsed_time(end)
            self._blocks.clear()
            return self._milliseconds

    def __reduce__(self) -> Any:
        # Events cannot be copied.
        return _stopped, (self._device, self.milliseconds)


class CallTimes:
    """How long the parts of a compressed call took.

    Args:
        vision: Measures the vision part, with what its attention costs.
        attention: Measures the attention of the vision tower that a scorer asked for.
        scoring: Measures the scorer.
        rewriting: Measures everything else, with the vision part.
    """

    def __init__(
        self, vision: Stopwatch, attention: Stopwatch, scoring: Stopwatch, rewriting: Stopwatch
    ) -> None:
        self._vision = vision
        self._attention = attention
        self._scoring = scoring
        self._rewriting = rewriting

    @property
    def is_done(self) -> bool:
        """Whether the device has finished the call, so that nobody waits for it."""
        return self._scoring.is_done and self._rewriting.is_done

    @property
    def vision_ms(self) -> float:
        """Milliseconds of the vision part."""
        return self._vision.milliseconds - self._attention.milliseconds

    @property
    def scoring_ms(self) -> float:
        """Milliseconds of the scorer."""
        return self._scoring.milliseconds + self._attention.milliseconds

    @property
    def rewriting_ms(self) -> float:
        """Milliseconds of selection and rewrite."""
        return self._rewriting.milliseconds - self._vision.milliseconds


def _stopped(device: torch.device, milliseconds: float) -> Stopwatch:
    stopwatch = Stopwatch(device)
    stopwatch._milliseconds = milliseconds
    return stopwatch
