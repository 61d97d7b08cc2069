"""Figures with matplotlib, an extra: curves that differ in colour, marker and line style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""The colour-blind safe colours of Okabe and Ito, without yellow, which is too light on white."""

_MARKERS = "osD^vPX"
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
_PANEL_SIZE = (6.0, 4.0)
_DPI = 150


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y); `errors` are half lengths of the error bars."""

    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """Curves by name on one pair of axes, with the labels of the axes."""

    curves: Mapping[str, Curve]
    x: str
    y: str


def figure_class() -> Any:
    """A subclass of matplotlib's Figure that notebooks display without pyplot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        # Avoid pyplot, which keeps figures alive and looks for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "Plots need matplotlib: pip install 'hf-token-compress[plots]'."
        raise ImportError(message) from error

    class DisplayedFigure(Figure):
        def _repr_png_(self) -> bytes:
            return _png(self, dpi=100)

    return DisplayedFigure


def new_figure(panels: int = 1, size: tuple[float, float] = _PANEL_SIZE) -> tuple[Any, list[Any]]:
    """A figure with panels side by side, each of `size` in inches, and the axes of each."""
    figure = figure_class()(figsize=(panels * size[0], size[1]), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, list(axes)


def line_figure(*panels: Panel) -> Any:
    """A matplotlib Figure with panels side by side, each with its curves and their legend.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = new_figure(len(panels))
    for one, panel in zip(axes, panels, strict=True):
        draw_curves(one, panel.curves)
        one.set(xlabel=panel.x, ylabel=panel.y)
        # Place the legend above the axes, where it hides no curve.
        one.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def draw_curves(axes: Any, curves: Mapping[str, Curve]) -> None:
    """Draw curves in matplotlib's axes, each with its own colour, marker and line style."""
    for number, (name, curve) in enumerate(curves.items()):
        axes.errorbar(
            curve.x,
            curve.y,
            yerr=curve.errors,
            label=name,
            color=COLOURS[number % len(COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_LINES[number % len(_LINES)],
            markersize=5,
            capsize=3,
        )


def figure_image(figure: Any, dpi: int = _DPI) -> Image.Image:
    """A matplotlib Figure as an RGB image.

    Args:
        figure: The figure.
        dpi: Pixels per inch.
    """
    return Image.open(BytesIO(_png(figure, dpi))).convert("RGB")


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a matplotlib Figure to a file; equal figures give equal PNG files.

    Raises:
        OSError: The file cannot be written.
        ValueError: The file name has no ending of an image format.
    """
    is_png = Path(path).suffix.lower() == ".png"
    figure.savefig(path, dpi=_DPI, metadata={"Software": None} if is_png else None)


def _png(figure: Any, dpi: int) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()
