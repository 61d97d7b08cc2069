"""Figures of measurements: retention, removal and training curves, and scores with a colour scale.

They need matplotlib, an extra: `pip install "hf-token-compress[plots]"`. Every function returns a
matplotlib Figure, which `figure_image` turns into a PIL image and `save_figure` into a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from PIL import Image

from .figures import Curve, Panel, draw_curves, line_figure, new_figure
from .grids import ScoredPrompt
from .overlays import HEAT, ScoreScale, heat_map

if TYPE_CHECKING:
    from ..relevance.faithfulness import FaithfulnessReport, RemovalCurve, SampleFaithfulness

RemovalOrder = Literal["least_first", "most_first", "random"]
TrainingPart = Literal["loss", "recall"]

ORDERS: dict[RemovalOrder, str] = {
    "least_first": "least relevant\nremoved first",
    "random": "random order",
    "most_first": "most relevant\nremoved first",
}
"""Labels for the orders of `SampleFaithfulness`."""

_AXES_WIDTH, _HEIGHT, _LETTER = 5.2, 3.8, 0.085  # inches


class _RetentionResult(Protocol):
    """`RetentionResult` of `hf_token_compress.evaluation`."""

    @property
    def scorer(self) -> str | None: ...
    @property
    def kept_share(self) -> float: ...
    def accuracy(self, kind: str | None = None) -> float: ...
    def standard_error(self, kind: str | None = None) -> float: ...


class _Epoch(Protocol):
    """`Epoch` of `hf_token_compress.training`."""

    @property
    def number(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def metrics(self) -> dict[str, float]: ...


def retention_curve(
    results: Sequence[_RetentionResult | Mapping[str, Any]],
    *,
    kind: str | None = None,
    title: str = "",
) -> Any:
    """Draw accuracy against the share of visual tokens kept, one curve per scorer.

    Error bars are one standard error. Every curve starts at the uncompressed model.

    Args:
        results: The results of `hf_token_compress.evaluation.measure_retention`, or the "rows" of
            the file that `hf-token-compress evaluate --json` writes.
        kind: A kind of question; by default all kinds together.
        title: Text over the figure.

    Returns:
        A matplotlib Figure. The legend lists the curves by their last points, the best on top.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The uncompressed model or all scorers are missing from the results, or there is
            no such kind.
    """
    points = [_RetentionPoint.read(result, kind) for result in results]
    full = next((point for point in points if point.scorer is None), None)
    measured = [point for point in points if point.scorer is not None]
    if full is None or not measured:
        raise ValueError(
            "A retention curve needs the result of the uncompressed model and that of at least one "
            "scorer: pass all results of measure_retention or evaluate --json."
        )
    # Sort the points of each scorer by the share kept, and the curves by their last points.
    curves: dict[str, Curve] = {}
    for scorer in dict.fromkeys(str(point.scorer) for point in measured):
        own = [full, *(point for point in measured if point.scorer == scorer)]
        own.sort(key=lambda point: -point.kept_share)
        curves[scorer] = Curve(
            [100 * point.kept_share for point in own],
            [100 * point.accuracy for point in own],
            [100 * point.error for point in own],
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
    curves: dict[str, Curve] = {}
    if isinstance(found, Mapping):
        # One curve per report.
        for name, report in found.items():
            curves[name] = _mean_curve([getattr(sample, order) for sample in report.samples])
        if found:
            first = next(iter(found.values()))
            curves["random order"] = _mean_curve([sample.random for sample in first.samples])
    else:
        # One curve per order.
        samples = getattr(found, "samples", (found,))
        for name, words in ORDERS.items():
            curves[words] = _mean_curve([getattr(sample, name) for sample in samples])
    if not curves:
        raise ValueError("A removal curve needs at least one report.")
    x, y = "visual tokens kept, in percent", "probability of the answer"
    figure, axes = _figure_beside_legend(curves, x, y, title)
    axes.set_ylim(0, 1.03)
    return figure


def training_curve(
    history: Sequence[_Epoch],
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
    low, high = float(sample.scores.min()), float(sample.scores.max())
    colours = LinearSegmentedColormap.from_list("heat", HEAT / 255)
    key = ScalarMappable(Normalize(low, high) if scale == "value" else Normalize(0, 1), colours)
    bar = figure.colorbar(key, ax=axes, shrink=0.9)
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["lowest", "highest"])
    bar.set_label("score" if scale == "value" else "rank of the score")
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


@dataclass(frozen=True)
class _RetentionPoint:
    scorer: str | None
    kept_share: float
    accuracy: float
    error: float

    @classmethod
    def read(
        cls, result: _RetentionResult | Mapping[str, Any], kind: str | None
    ) -> _RetentionPoint:
        try:
            if not isinstance(result, Mapping):
                accuracy, error = result.accuracy(kind), result.standard_error(kind)
                return cls(result.scorer, result.kept_share, accuracy, error)
            own = result if kind is None else result["kinds"][kind]
        except KeyError:
            raise ValueError(f"The results have no question of the kind {kind!r}.") from None
        scorer = None if result["scorer"] == "full" else result["scorer"]
        return cls(scorer, result["kept_share"], own["accuracy"], own["standard_error"])


def _mean_curve(curves: Sequence[RemovalCurve]) -> Curve:
    """The mean probability of the answers, with its standard error if there are several."""
    if not curves:
        raise ValueError("A removal curve needs at least one sample.")
    ratios = curves[0].retention_ratios.tolist()
    if any(curve.retention_ratios.tolist() != ratios for curve in curves):
        raise ValueError("Removal curves must have the same retention ratios to be averaged.")
    likely = np.array(
        [curve.log_probabilities.float().exp().tolist() for curve in curves]
    )  # [C, R]
    count = len(curves)
    errors = likely.std(0, ddof=1) / sqrt(count) if count > 1 else None
    percent = [100 * ratio for ratio in ratios]
    return Curve(percent, likely.mean(0).tolist(), None if errors is None else errors.tolist())
