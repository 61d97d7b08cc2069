"""Peak memory of a computation, on the CPU of a Linux machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_token_compress.evaluation.speed.peak_memory import PeakMemory

MIB = 2**20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's counters"
)


def hold(mebibytes: int) -> list[torch.Tensor]:
    """Memory in pieces that an allocator keeps for itself after they were freed."""
    return [torch.ones(MIB // 4) for _ in range(mebibytes)]


def test_memory_that_was_held_and_freed_before_is_counted_again() -> None:
    for _ in range(3):
        held = hold(96)
        del held
        memory = PeakMemory(torch.device("cpu"))
        held = hold(64)
        assert 60 * MIB < memory.bytes() < 80 * MIB
        del held


def test_the_peak_stays_after_memory_was_freed() -> None:
    memory = PeakMemory(torch.device("cpu"))
    held = hold(64)
    del held
    assert memory.bytes() > 60 * MIB
