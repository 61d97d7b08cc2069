"""The benchmark of the memory of relevance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_token_compress.relevance.attention_tap import MEMORY_LIMIT
from lab.benchmarks.relevance_cost import METHODS, measure_memory

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's counters")
def test_peak_memory_is_that_of_a_backward_pass() -> None:
    """Relevance needs scratch memory for one chunk of queries in addition."""
    plain, ours, checkpointed, stored = (
        measure_memory(method, length=1500, layers=3, width=256, heads=8) for method in METHODS
    )
    assert checkpointed < ours
    assert ours <= plain + 1.25 * MEMORY_LIMIT
    assert ours <= stored / 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's counters")
def test_the_benchmark_prints_ratios() -> None:
    module = "lab.benchmarks.relevance_cost"
    size = ["--length", "64", "--layers", "1", "--width", "32", "--heads", "2", "--runs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", module, *size], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in METHODS.values())
    assert "ratio" in done.stdout
