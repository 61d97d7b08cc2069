"""Figures of `hf_token_compress.evaluation.speed`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .figures import Curve, Panel, line_figure


def speed_curves(results: Sequence[Any]) -> Any:
    """Draw the time to the first token against the visual tokens of the prompt.

    One panel shows it relative to the uncompressed model, one relative to the ideal: the stock
    model on the kept tokens alone. Error bars are half the distance between the quartiles.

    Args:
        results: The results of `hf_token_compress.evaluation.speed.measure_speed`.

    Returns:
        A matplotlib Figure with a curve per scorer, ratio and batch size.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no result of a compressed call.
    """
    measured = [result for result in results if result.scorer is not None]
    if not measured:
        raise ValueError("There is nothing to draw: pass all results of measure_speed.")
    several = len({result.batch_size for result in measured}) > 1
    points: dict[str, list[Any]] = defaultdict(list)
    for result in sorted(measured, key=lambda result: result.visual_tokens):
        batch = f", batch of {result.batch_size}" if several else ""
        points[f"{result.scorer}, {result.retention_ratio:.0%} kept{batch}"].append(result)
    panels = []
    for name, other in (("to_full", "full model"), ("to_ideal", "ideal")):
        curves = {}
        for label, own in points.items():
            ratios = [getattr(result, name).first_token for result in own]
            bars = [(high - low) / 2 for low, high in (ratio.quartiles for ratio in ratios)]
            x = [result.visual_tokens for result in own]
            curves[label] = Curve(x, [ratio.median for ratio in ratios], bars)
        label = f"first token, relative to the {other}"
        panels.append(Panel(curves, "visual tokens of the prompt", label))
    figure = line_figure(*panels)
    ticks = sorted({result.visual_tokens for result in measured})
    for axes in figure.axes:
        axes.axhline(1, color="grey", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    return figure
