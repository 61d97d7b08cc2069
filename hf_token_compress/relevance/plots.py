"""Plots, with matplotlib, which is an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faithfulness import SampleFaithfulness


def figure_class() -> Any:
    """The class of matplotlib's figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        # Without pyplot, which holds figures and looks for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "Plots need matplotlib: pip install 'hf-token-compress[plots]'."
        raise ImportError(message) from error
    return Figure


@contextmanager
def figure(path: Path) -> Iterator[Any]:
    """Axes of one plot, written to a file at the end of the `with` block.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawing = figure_class()(figsize=(6, 4), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    drawing.savefig(path, dpi=150)


def plot_faithfulness(sample: SampleFaithfulness, path: Path) -> None:
    """Draw how likely an answer stays as visual tokens are removed.

    Args:
        sample: The removals of one prompt.
        path: File to write, for instance a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    curves = {
        "least relevant removed first": sample.least_first,
        "random": sample.random,
        "most relevant removed first": sample.most_first,
    }
    with figure(path) as axes:
        for name, curve in curves.items():
            percent = 100 * curve.retention_ratios
            likely = curve.log_probabilities.float().exp().cpu()
            axes.plot(percent, likely, marker="o", label=name)
        axes.invert_xaxis()
        axes.set(xlabel="visual tokens kept, in percent", ylabel="probability of the answer")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
