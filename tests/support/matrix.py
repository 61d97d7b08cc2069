"""Axes of the test matrix: one cell of each kind runs by default, all of them with `--matrix`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
import torch


def full_only(*values: Any, id: str | None = None) -> Any:
    """A parameter that only runs with `--matrix`."""
    return pytest.param(*values, id=id, marks=pytest.mark.matrix)


def one_at_a_time(*axes: Iterable[Any]) -> list[Any]:
    """All combinations of several axes, most of them only with `--matrix`.

    By default, combinations run that differ from the first one along one axis at most: every value
    of every axis, but not with every value of the others.

    Args:
        axes: Values of one argument each, or `pytest.param` of several arguments.
    """
    every = [[_parameter(value) for value in axis] for axis in axes]
    cells = []
    for cell in product(*every):
        changed = sum(own is not axis[0] for own, axis in zip(cell, every, strict=True))
        marks = [mark for own in cell for mark in own.marks]
        cells.append(
            pytest.param(
                *(value for own in cell for value in own.values),
                id="-".join(own.id for own in cell),
                marks=[*marks, pytest.mark.matrix] if changed > 1 else marks,
            )
        )
    return cells


def _parameter(value: Any) -> Any:
    return value if isinstance(value, type(pytest.param())) else pytest.param(value, id=str(value))


each_attention = pytest.mark.parametrize("attention", ["sdpa", full_only("eager")])
each_dtype = pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float32, id="fp32"), full_only(torch.bfloat16, id="bf16")],
)
