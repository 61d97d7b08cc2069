"""Plots, with matplotlib, which is an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def figure(path: Path) -> Iterator[Any]:
    """Axes of one plot, written to a file at the end of the `with` block.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        # Without pyplot, which holds figures and looks for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install 'hf-token-compress[plots]'."
        ) from error
    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    drawing.savefig(path, dpi=150)
