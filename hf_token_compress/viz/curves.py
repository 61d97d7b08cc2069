"""Figures of what was measured: retention curves, removal curves, trainings, scores with a scale.

They need matplotlib, which is an extra: `pip install "hf-token-compress[plots]"`. Every function
returns a matplotlib Figure; `figure_image` makes it a PIL image and `save_figure` a file.
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
from .pictures import HEAT, ScoreScale, heat_map

if TYPE_CHECKING:
    from ..relevance.faithfulness import FaithfulnessReport, RemovalCurve, SampleFaithfulness

RemovalOrder = Literal["least_first", "most_first", "random"]
TrainingPart = Literal["loss", "recall"]

ORDERS: dict[RemovalOrder, str] = {
    "least_first": "least relevant\nremoved first",
    "random": "random order",
    "most_first": "most relevant\nremoved first",
}
"""The orders of `SampleFaithfulness`, in words."""

_AXES_WIDTH, _HEIGHT, _LETTER = 5.2, 3.8, 0.085  # inches


class MeasuredRetention(Protocol):
    """What `measure_retention` returns, one per scorer and ratio."""

    @property
    def scorer(self) -> str | None:
        """Name of the scorer; None for the uncompressed model."""

    @property
    def kept_share(self) -> float:
        """Share of visual tokens that was kept."""

    def accuracy(self, kind: str | None = None) -> float:
        """Share of right answers, of one kind or of all."""

    def standard_error(self, kind: str | None = None) -> float:
        """Its standard error."""


class TrainingEpoch(Protocol):
    """One epoch of a mapper's training, as `train_mapper` reports it."""

    @property
    def number(self) -> int:
        """Counted from 1."""

    @property
    def train_loss(self) -> float:
        """Mean KL divergence over the training samples."""

    @property
    def metrics(self) -> dict[str, float]:
        """On the held-out samples: "kl" and shares in [0, 1]."""


def retention_curve(
    rows: Sequence[MeasuredRetention | Mapping[str, Any]],
    *,
    kind: str | None = None,
    title: str = "",
) -> Any:
    """Accuracy against the share of visual tokens kept, one curve per scorer.

    Error bars are one standard error. Every curve starts from the uncompressed model.

    Args:
        rows: What `hf_token_compress.evaluation.measure_retention` returned, or the "rows" of what
            `hf-token-compress evaluate --json` wrote.
        kind: A kind of question; by default all together.
        title: Text over the figure.

    Returns:
        A matplotlib Figure. Curves are named in the order in which they end, the best on top.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no row of the uncompressed model, no other row, or no such kind.
    """
    points = [_RetentionPoint.read(row, kind) for row in rows]
    full = next((point for point in points if point.scorer is None), None)
    measured = [point for point in points if point.scorer is not None]
    if full is None or not measured:
        raise ValueError(
            "A retention curve needs the row of the uncompressed model and at least one of a "
            "scorer: pass all that measure_retention or evaluate --json gave."
        )
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
    asked = "right answers, in percent" if kind is None else f"right answers ({kind}), in percent"
    figure, axes = _figure_beside_legend(ordered, "visual tokens kept", asked, title)
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
    """How likely answers stay as visual tokens are removed, a test of relevance and of scorers.

    Args:
        found: What `hf_token_compress.relevance.faithfulness` returned, or one of its samples: a
            curve for each order of removal. Or several reports by the names of what gave the
            scores: one curve for each, and one for random order.
        order: The order in which several reports are compared.
        title: Text over the figure.

    Returns:
        A matplotlib Figure. Over several prompts it shows the mean and its standard error.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no sample, or reports differ in their retention ratios.
    """
    curves: dict[str, Curve] = {}
    if isinstance(found, Mapping):
        for name, report in found.items():
            curves[name] = _mean_curve([getattr(sample, order) for sample in report.samples])
        if found:
            first = next(iter(found.values()))
            curves["random order"] = _mean_curve([sample.random for sample in first.samples])
    else:
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
    history: Sequence[TrainingEpoch],
    parts: Sequence[Literal["loss", "recall"]] = ("loss", "recall"),
) -> Any:
    """The training of a mapper: its loss, and what it is worth on held-out samples.

    Args:
        history: Epochs, as `after_epoch` of `train_mapper` gave them or `read_history` read them.
        parts: "loss" (KL divergence of training and held-out samples), "recall" (share of the
            truly most relevant tokens that the mapper puts on top, and rank correlation).

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
        "held out": Curve(numbers, [epoch.metrics["kl"] for epoch in history]),
    }
    recall = {
        name.replace("_", " "): Curve(numbers, [epoch.metrics[name] for epoch in history])
        for name in history[0].metrics
        if name != "kl"
    }
    panels = {
        "loss": Panel(loss, "epoch", "KL divergence"),
        "recall": Panel(recall, "epoch", "share, on held-out samples"),
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
    """`heat_map` beside a scale that tells what its colours mean.

    Args:
        image: The image that the processor was given; for a video, its frame.
        sample: Its prompt, as in `heat_map`.
        visual: Which image or video of the prompt it is.
        frame: Which frame of the visual's grid; 0 for an image.
        scale: "value" or "rank", as in `heat_map`.
        title: Text over the image.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError, ValueError: As in `heat_map`.
    """
    drawn = heat_map(image, sample, visual, frame=frame, scale=scale)
    height = min(max(5.0 * drawn.height / drawn.width, 2.0), 7.0)
    width = height * drawn.width / drawn.height + 1.2
    figure, (axes,) = new_figure(size=(width, height))

    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    axes.imshow(np.asarray(drawn))
    axes.set_axis_off()
    axes.set_title(title)
    assert sample.scores is not None  # or else there were no heat map
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
    """A figure and its axes, all tokens on the left, with room for the names of its curves."""
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
    def read(cls, row: MeasuredRetention | Mapping[str, Any], kind: str | None) -> _RetentionPoint:
        try:
            if not isinstance(row, Mapping):
                accuracy, error = row.accuracy(kind), row.standard_error(kind)
                return cls(row.scorer, row.kept_share, accuracy, error)
            own = row if kind is None else row["kinds"][kind]
        except KeyError:
            raise ValueError(f"No question of the kind {kind!r} was asked.") from None
        scorer = None if row["scorer"] == "full" else row["scorer"]
        return cls(scorer, row["kept_share"], own["accuracy"], own["standard_error"])


def _mean_curve(curves: Sequence[RemovalCurve]) -> Curve:
    """Mean probability of the answers, with its standard error where there are several."""
    if not curves:
        raise ValueError("A removal curve needs at least one sample.")
    ratios = curves[0].retention_ratios.tolist()
    if any(curve.retention_ratios.tolist() != ratios for curve in curves):
        raise ValueError("Removal curves have a mean only if they have the same retention ratios.")
    likely = np.array(
        [curve.log_probabilities.float().exp().tolist() for curve in curves]
    )  # [C, R]
    count = len(curves)
    errors = likely.std(0, ddof=1) / sqrt(count) if count > 1 else None
    percent = [100 * ratio for ratio in ratios]
    return Curve(percent, likely.mean(0).tolist(), None if errors is None else errors.tolist())
