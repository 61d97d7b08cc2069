"""Axes of the test matrix: one cell of each kind runs by default, all of them with `--matrix`."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def full_only(*values: Any, id: str | None = None) -> Any:
    """A parameter that only runs with `--matrix`."""
    return pytest.param(*values, id=id, marks=pytest.mark.matrix)


each_attention = pytest.mark.parametrize("attention", ["sdpa", full_only("eager")])
each_dtype = pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float32, id="fp32"), full_only(torch.bfloat16, id="bf16")],
)
