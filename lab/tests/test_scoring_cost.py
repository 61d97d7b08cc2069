"""The benchmark of the cost of scoring."""

from __future__ import annotations

import pytest

from lab.benchmarks.scoring_cost import measure


def test_scoring_takes_less_memory_than_whole_maps() -> None:
    """With the same scores, at a fifth of the tokens of the documented figure."""
    costs = {
        method: measure(method, visual_tokens=300, instruction=10, runs=1)
        for method in ("fast", "probe", "eager")
    }
    for method in ("fast", "probe"):
        assert costs[method].scores == pytest.approx(costs["eager"].scores, rel=1e-4)
    assert 2 * costs["fast"].memory < costs["eager"].memory
    assert costs["probe"].memory < costs["eager"].memory
