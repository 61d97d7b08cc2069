"""Figures: the numbers they show, how they are told apart, and what they refuse."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from retention_results import retention_result
from test_viz import report
from typer.testing import CliRunner

from hf_token_compress.cli import app
from hf_token_compress.evaluation import Evaluation, RetentionResult
from hf_token_compress.evaluation.table import table_rows
from hf_token_compress.relevance.faithfulness import (
    FaithfulnessReport,
    RemovalCurve,
    SampleFaithfulness,
)
from hf_token_compress.training.train import Epoch
from hf_token_compress.viz import (
    figure_image,
    heat_map,
    heat_map_figure,
    removal_curve,
    retention_curve,
    save_figure,
    training_curve,
)
from hf_token_compress.viz.figures import Curve, Panel, line_figure

ASKED = {"place": 10, "where": 30}


def result(scorer: str | None, kept: float, place: int, where: int) -> RetentionResult:
    return retention_result(scorer, kept, {"place": place, "where": where}, ASKED)


FOUND = [
    result(None, 1.0, 10, 30),
    result("random", 0.25, 4, 8),
    result("random", 0.5, 5, 15),
    result("mapper", 0.5, 10, 29),
    result("mapper", 0.25, 9, 27),
]


def drawn(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Points of every curve by its name."""
    return {
        bars.get_label(): (bars[0].get_xdata().tolist(), bars[0].get_ydata().tolist())
        for bars in axes.containers
    }


def lengths(axes: Any, name: str) -> list[float]:
    """Half lengths of a curve's error bars."""
    (bars,) = (bars for bars in axes.containers if bars.get_label() == name)
    (lines,) = bars[2]
    return [float(np.ptp(segment[:, 1])) / 2 for segment in lines.get_segments()]


def test_a_retention_curve_shows_accuracy_against_the_share_kept() -> None:
    (axes,) = retention_curve(FOUND).axes
    points = drawn(axes)
    assert points["random"] == ([100, 50, 25], pytest.approx([100, 50, 30]))
    assert points["mapper"] == ([100, 50, 25], pytest.approx([100, 97.5, 90]))
    # A binomial standard error of 40 questions.
    expected = [0, *(100 * math.sqrt(p * (1 - p) / 40) for p in (0.975, 0.9))]
    assert lengths(axes, "mapper") == pytest.approx(expected)
    assert list(points) == ["mapper", "random"]  # as they end, from the top
    left, right = axes.get_xlim()
    assert left > 100 > 25 > right


def test_curves_of_one_kind() -> None:
    (axes,) = retention_curve(FOUND, kind="place").axes
    assert drawn(axes)["random"][1] == pytest.approx([100, 50, 40])


def written(results: list[RetentionResult]) -> Any:
    """The rows of the file that evaluate writes."""
    return json.loads(json.dumps(table_rows(Evaluation(tuple(results)))))


def test_what_evaluate_writes_gives_the_same_curves() -> None:
    rows = written(FOUND)
    for kind in (None, "where"):
        (axes,) = retention_curve(FOUND, kind=kind).axes
        (again,) = retention_curve(rows, kind=kind).axes
        assert drawn(axes) == drawn(again)
    assert lengths(axes, "random") == lengths(again, "random")


def test_what_evaluate_writes_has_bands() -> None:
    """Of the interval of the paired difference, around the same points."""
    rows = written(FOUND)
    (axes,) = retention_curve(rows).axes
    (mapper, random) = (band.get_paths()[0].vertices[:, 1] for band in axes.collections)
    for name, band in (("mapper", mapper), ("random", random)):
        ends = [
            100 * (1 + row["difference"][end])
            for row in rows
            if row["scorer"] == name
            for end in ("low", "high")
        ]
        assert sorted({round(y, 6) for y in band}) == sorted({round(y, 6) for y in (100, *ends)})


def test_bad_retention_curves() -> None:
    for results in ([], FOUND[:1], FOUND[1:]):
        with pytest.raises(ValueError, match="uncompressed"):
            retention_curve(results)
    for results in (FOUND, written(FOUND)):
        with pytest.raises(ValueError, match="letter"):
            retention_curve(results, kind="letter")


def faithful(least: float, most: float, ratios: tuple[float, ...] = (1.0, 0.5)) -> Any:
    """A prompt whose answer has these probabilities at half of the tokens."""
    curves = [
        RemovalCurve(
            torch.tensor(ratios, dtype=torch.float64),
            torch.tensor([0.9, likely]).log(),
            torch.ones(2, dtype=torch.bool),
        )
        for likely in (least, most, 0.5)
    ]
    return SampleFaithfulness(*curves, answer_ids=torch.tensor([1]))


def test_a_removal_curve_shows_probabilities() -> None:
    (axes,) = removal_curve(faithful(0.8, 0.1)).axes
    points = drawn(axes)
    for name, likely in (("least", 0.8), ("random", 0.5), ("most", 0.1)):
        (own,) = (points[words] for words in points if name in words)
        assert own == ([100, 50], pytest.approx([0.9, likely]))
    assert axes.get_xlim()[0] > axes.get_xlim()[1]


def test_several_prompts_have_a_mean_and_its_error() -> None:
    samples = FaithfulnessReport((faithful(0.8, 0.1), faithful(0.6, 0.3), faithful(0.7, 0.2)))
    (axes,) = removal_curve(samples).axes
    name = "least relevant\nremoved first"
    assert drawn(axes)[name][1] == pytest.approx([0.9, 0.7])
    # The standard deviation of 0.6, 0.7 and 0.8 is 0.1.
    assert lengths(axes, name) == pytest.approx([0, 0.1 / math.sqrt(3)], abs=1e-6)


def test_several_scorers_are_compared_in_one_order() -> None:
    reports = {
        name: FaithfulnessReport((faithful(p, 0.1),)) for name, p in (("a", 0.8), ("b", 0.3))
    }
    (axes,) = removal_curve(reports).axes
    halves = {name: y[1] for name, (_, y) in drawn(axes).items()}
    assert halves == pytest.approx({"a": 0.8, "b": 0.3, "random order": 0.5})
    (axes,) = removal_curve(reports, order="most_first").axes
    assert drawn(axes)["a"][1][1] == pytest.approx(0.1)


def test_bad_removal_curves() -> None:
    with pytest.raises(ValueError, match="report"):
        removal_curve({})
    with pytest.raises(ValueError, match="sample"):
        removal_curve(FaithfulnessReport(()))
    with pytest.raises(ValueError, match="ratios"):
        removal_curve(FaithfulnessReport((faithful(0.8, 0.1), faithful(0.8, 0.1, (1.0, 0.4)))))


def test_a_training_curve_shows_loss_and_recall() -> None:
    history = [Epoch(n, 1.0 / n, {"kl": 2.0 / n, "recall_25": 0.1 * n}) for n in (1, 2, 4)]
    loss, recall = training_curve(history).axes
    assert drawn(loss) == {
        "training": ([1, 2, 4], [1.0, 0.5, 0.25]),
        "validation": ([1, 2, 4], [2.0, 1.0, 0.5]),
    }
    assert drawn(recall) == {"recall 25": ([1, 2, 4], pytest.approx([0.1, 0.2, 0.4]))}
    (only,) = training_curve(history, ["recall"]).axes
    assert drawn(only) == drawn(recall)
    with pytest.raises(ValueError, match="epoch"):
        training_curve([])


@pytest.mark.parametrize("size", [(320, 160), (64, 448), (200, 200)])
def test_a_heat_map_has_a_scale(size: tuple[int, int]) -> None:
    sample = report([(1, 4, 4)], scores=torch.linspace(-3.0, 5.0, 16))
    image = Image.new("RGB", size, "grey")
    figure = heat_map_figure(image, sample)
    axes, bar = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(heat_map(image, sample)))
    assert bar.get_ylim() == (-3.0, 5.0)
    # The image keeps its proportions, and has most of the figure.
    figure_image(figure)
    box = axes.images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(size[0] / size[1], rel=0.02)
    assert max(box.width, box.height) > 150
    ranked = heat_map_figure(image, sample, scale="rank").axes[1]
    assert [label.get_text() for label in ranked.get_yticklabels()] == ["lowest", "highest"]
    with pytest.raises(ValueError, match="no scores"):
        heat_map_figure(image, report([(1, 4, 4)]))


def lightness(colour: str) -> float:
    """CIE L*, of 0 to 100."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_curves_are_told_apart_without_their_hues() -> None:
    curves = {str(number): Curve([1, 2], [number, 2 * number]) for number in range(7)}
    (axes,) = line_figure(Panel(curves, "x", "y")).axes
    lines = [bars[0] for bars in axes.containers]
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7
    assert all(lightness(line.get_color()) < 75 for line in lines)  # seen on white


@pytest.mark.parametrize(
    "draw", [lambda: retention_curve(FOUND), lambda: removal_curve(faithful(0.8, 0.1))]
)
def test_text_is_legible_at_the_width_of_a_readme(draw: Any) -> None:
    figure = draw()
    image = figure_image(figure)
    shown = min(1.0, 830 / image.width)
    for axes in figure.axes:
        for text in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()):
            assert text.get_fontsize() / 72 * 150 * shown >= 12  # pixels


def test_figures_become_images(tmp_path: Path) -> None:
    figure = retention_curve(FOUND)
    image = figure_image(figure, dpi=50)
    assert image.mode == "RGB"
    assert image.size == pytest.approx(50 * figure.get_size_inches(), abs=1)
    for name in ("a.png", "b.png"):
        save_figure(retention_curve(FOUND), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(BytesIO(figure._repr_png_())) as shown:
        assert shown.format == "PNG"


@dataclass
class Call:
    """A call of the command line."""

    arguments: tuple[Any, ...]

    def __call__(self, *more: Any) -> Any:
        return CliRunner().invoke(app, [str(item) for item in (*self.arguments, *more)])


evaluate = Call(
    (
        "evaluate",
        "--per-kind",
        2,
        "--kind",
        "colour",
        "--scorer",
        "random",
        "--retention-ratio",
        0.5,
    )
)


def test_evaluate_draws_a_retention_curve(tmp_path: Path) -> None:
    outcome = evaluate("--plot", tmp_path / "curve.png", "--markdown")
    assert outcome.exit_code == 0, outcome.stderr
    with Image.open(tmp_path / "curve.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 10


@pytest.mark.parametrize(
    ("name", "words"), [("curve", "no image extension"), ("none/curve.png", "There is no folder")]
)
def test_evaluate_tells_where_it_cannot_draw(name: str, words: str, tmp_path: Path) -> None:
    outcome = evaluate("--plot", tmp_path / name)
    assert outcome.exit_code in (1, 2)
    (line,) = outcome.stderr.splitlines()
    assert words in line


def test_without_matplotlib_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'hf-token-compress\[plots\]'"):
        retention_curve(FOUND)
    outcome = evaluate("--plot", tmp_path / "curve.png")
    assert outcome.exit_code == 1
    (line,) = outcome.stderr.splitlines()
    assert "hf-token-compress[plots]" in line
