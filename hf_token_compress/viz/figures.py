"""Figures of measurements: retention, removal and training curves, and scores with a colour scale.

They need matplotlib, an extra: `pip install "hf-token-compress[plots]"`. Every function returns a
matplotlib Figure, which `figure_image` turns into a PIL image and `save_figure` into a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from .grids import ScoredPrompt
from .overlays import HEAT, ScoreScale, heat_map

if TYPE_CHECKING:
    from ..relevance.faithfulness import FaithfulnessReport, SampleFaithfulness

RemovalOrder = Literal["least_first", "most_first", "random"]

_ORDER_LABELS: dict[RemovalOrder, str] = {
    "least_first": "least relevant\nremoved first",
    "random": "random order",
    "most_first": "most relevant\nremoved first",
}
_AXES_WIDTH, _HEIGHT, _LETTER = 5.2, 3.8, 0.085  # inches

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""The colour-blind safe colours of Okabe and Ito, without yellow, which is too light on white."""

_MARKERS = "osD^vPX"
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
_PANEL_SIZE = (6.0, 4.0)
_DPI = 150


def retention_curve(results: Sequence[Any], *, kind: str | None = None, title: str = "") -> Any:
    """Draw accuracy against the share of visual tokens kept, one curve per scorer.

    Every curve starts at the uncompressed model. Rows of a file are drawn with a band, the interval
    of the difference to that model; else error bars are one standard error.

    Args:
        results: The results of `hf_token_compress.evaluation.measure_retention`, or the "rows" of
            the file that `hf-token-compress evaluate --output` writes.
        kind: A kind of question; by default all kinds together.
        title: Text over the figure.

    Returns:
        A matplotlib Figure. The legend lists the curves by their last points, the best on top.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The uncompressed model or all scorers are missing from the results, or there is
            no such kind.
    """
    points = defaultdict(list)
    for result in results:
        scorer, *point = _read_point(result, kind)
        points[scorer].append(point)
    full = points.pop(None, None)
    if not full or not points:
        raise ValueError(
            "A retention curve needs the result of the uncompressed model and that of at least one "
            "scorer: pass all results of measure_retention or of evaluate --output."
        )
    # Sort the points of each scorer by the share kept, and the curves by their last points.
    curves = {}
    for scorer, own in points.items():
        shares, accuracies, errors, bands = zip(
            *sorted([full[0], *own], key=lambda point: -point[0]), strict=True
        )
        with_bands = None not in bands
        curves[str(scorer)] = Curve(
            shares, accuracies, None if with_bands else errors, bands if with_bands else None
        )
    ordered = dict(sorted(curves.items(), key=lambda item: -item[1].y[-1]))
    # Draw on a logarithmic axis with a tick at every share.
    label = "right answers, in percent" if kind is None else f"right answers ({kind}), in percent"
    figure, axes = _figure_beside_legend(ordered, "visual tokens kept", label, title)
    axes.set_xscale("log")
    ticks = sorted({round(x, 1) for curve in ordered.values() for x in curve.x})
    axes.set_xticks(ticks, [f"{tick:.0f} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 103)
    return figure


def removal_curve(
    found: FaithfulnessReport | SampleFaithfulness | Mapping[str, FaithfulnessReport],
    *,
    order: RemovalOrder = "least_first",
    title: str = "",
) -> Any:
    """Draw how likely answers stay as visual tokens are removed: a test of relevance and scorers.

    Args:
        found: A report of `hf_token_compress.relevance.faithfulness` or one of its samples, for one
            curve per order of removal. Or several reports by name, for one curve each and one for
            random order.
        order: The order of removal in which several reports are compared.
        title: Text over the figure.

    Returns:
        A matplotlib Figure. For several prompts it shows the mean and its standard error.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no report or no sample, or reports have different retention ratios.
    """
    if isinstance(found, Mapping):
        # One curve per report.
        if not found:
            raise ValueError("A removal curve needs at least one report.")
        curves = {name: _mean_curve(report.samples, order) for name, report in found.items()}
        first = next(iter(found.values()))
        curves["random order"] = _mean_curve(first.samples, "random")
    else:
        # One curve per order.
        samples: Any = getattr(found, "samples", (found,))
        curves = {label: _mean_curve(samples, name) for name, label in _ORDER_LABELS.items()}
    x, y = "visual tokens kept, in percent", "probability of the answer"
    figure, axes = _figure_beside_legend(curves, x, y, title)
    axes.set_ylim(0, 1.03)
    return figure


def training_curve(
    history: Sequence[Any],
    parts: Sequence[Literal["loss", "recall"]] = ("loss", "recall"),
) -> Any:
    """Draw the training of a mapper: its loss, and its quality on validation samples.

    Args:
        history: Epochs that `train_mapper` passed to `after_epoch`, or that `read_history` read.
        parts: "loss" is the KL divergence on training and validation samples; "recall" is the share
            of the most relevant tokens that the mapper ranks highest, and the rank correlation.

    Returns:
        A matplotlib Figure with one panel per part.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no epoch.
    """
    if not history:
        raise ValueError("A training curve needs at least one epoch.")
    numbers = [epoch.number for epoch in history]
    loss = {
        "training": Curve(numbers, [epoch.train_loss for epoch in history]),
        "validation": Curve(numbers, [epoch.metrics["kl"] for epoch in history]),
    }
    recall = {
        name.replace("_", " "): Curve(numbers, [epoch.metrics[name] for epoch in history])
        for name in history[0].metrics
        if name != "kl"
    }
    panels = {
        "loss": Panel(loss, "epoch", "KL divergence"),
        "recall": Panel(recall, "epoch", "share, on validation samples"),
    }
    return line_figure(*(panels[part] for part in parts))


def heat_map_figure(
    image: Image.Image,
    sample: ScoredPrompt,
    visual: int = 0,
    *,
    frame: int = 0,
    scale: ScoreScale = "value",
    title: str = "",
) -> Any:
    """Draw `heat_map` beside a scale of its colours.

    Args:
        image: The image that the processor was given, or a frame of a video.
        sample: Its prompt, as in `heat_map`.
        visual: Index of the image or video in the prompt.
        frame: Index of the frame in the video's grid; 0 for an image.
        scale: "value" or "rank", as in `heat_map`.
        title: Text over the image.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError, ValueError: As in `heat_map`.
    """
    # The figure has the proportions of the image, with room for the scale.
    drawn = heat_map(image, sample, visual, frame=frame, scale=scale)
    height = min(max(5.0 * drawn.height / drawn.width, 2.0), 7.0)
    width = height * drawn.width / drawn.height + 1.2
    figure, (axes,) = new_figure(size=(width, height))

    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    axes.imshow(np.asarray(drawn))
    axes.set_axis_off()
    axes.set_title(title)
    # The scale runs over the scores of the whole prompt, as in the heat map.
    assert sample.scores is not None
    low, high = sample.scores.aminmax() if scale == "value" else (0, 1)
    colours = LinearSegmentedColormap.from_list("heat", HEAT / 255)
    key = ScalarMappable(Normalize(float(low), float(high)), colours)
    bar = figure.colorbar(key, ax=axes, shrink=0.9)
    bar.set_label("score" if scale == "value" else "rank of the score")
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["lowest", "highest"])
    return figure


def _figure_beside_legend(
    curves: Mapping[str, Curve], x: str, y: str, title: str
) -> tuple[Any, Any]:
    """A figure and its axes, with all tokens on the left and room for the legend on the right."""
    longest = max(len(line) for name in curves for line in name.splitlines())
    figure, (axes,) = new_figure(size=(_AXES_WIDTH + _LETTER * longest, _HEIGHT))
    draw_curves(axes, curves)
    axes.set(xlabel=x, ylabel=y)
    axes.invert_xaxis()
    figure.legend(loc="outside right center", frameon=False)
    figure.suptitle(title)
    return figure, axes


def _read_point(result: Any, kind: str | None) -> tuple[str | None, float, float, float, Any]:
    """The scorer, and in percent: the share kept, the accuracy, its standard error and its band."""
    band = None
    try:
        if isinstance(result, Mapping):
            scorer = None if result["scorer"] == "full" else result["scorer"]
            own = result if kind is None else result["kinds"][kind]
            share, accuracy, error = result["kept_share"], own["accuracy"], own["standard_error"]
            if "difference" in own:
                # The uncompressed model is compared with itself.
                difference = own["difference"] or {"value": 0.0, "low": 0.0, "high": 0.0}
                whole = accuracy - difference["value"]
                band = tuple(100 * (whole + difference[end]) for end in ("low", "high"))
        else:
            scorer, share = result.scorer, result.kept_share
            accuracy, error = result.accuracy(kind), result.standard_error(kind)
    except KeyError:
        raise ValueError(f"The results have no question of the kind {kind!r}.") from None
    return scorer, 100 * share, 100 * accuracy, 100 * error, band


def _mean_curve(samples: Sequence[SampleFaithfulness], order: RemovalOrder) -> Curve:
    """The mean probability of the answers, with its standard error if there are several."""
    if not samples:
        raise ValueError("A removal curve needs at least one sample.")
    curves = [getattr(sample, order) for sample in samples]
    ratios = curves[0].retention_ratios.tolist()
    if any(curve.retention_ratios.tolist() != ratios for curve in curves):
        raise ValueError("Removal curves must have the same retention ratios to be averaged.")
    # [curves, ratios]
    likely = np.array([curve.log_probabilities.float().exp().tolist() for curve in curves])
    several = len(curves) > 1
    errors = (likely.std(0, ddof=1) / sqrt(len(curves))).tolist() if several else None
    return Curve([100 * ratio for ratio in ratios], likely.mean(0).tolist(), errors)


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y).

    Attributes:
        errors: Half lengths of the error bars.
        band: Lower and upper end of an interval around each point.
    """

    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] | None = None
    band: Sequence[tuple[float, float]] | None = None


@dataclass(frozen=True)
class Panel:
    """Curves by name on one pair of axes, with the labels of the axes."""

    curves: Mapping[str, Curve]
    x: str
    y: str


def figure_class() -> Any:
    """A subclass of matplotlib's Figure that notebooks display without pyplot."""
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
    """A matplotlib Figure with panels side by side, each with its curves and their legend."""
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
        color = COLOURS[number % len(COLOURS)]
        if curve.band is not None:
            low, high = zip(*curve.band, strict=True)
            axes.fill_between(curve.x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.errorbar(
            curve.x,
            curve.y,
            yerr=curve.errors,
            label=name,
            color=color,
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
