"""Tables of what a benchmark found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .random_model import Depth
from .results import Comparison, SpeedResult
from .timing import Spread

_FULL = "(full)"
_NOTHING = "–"
_SECONDS_FROM = 10_000


class SpeedTable(NamedTuple):
    """A table of text: its title, its headings, and the cells of each row."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The table in Markdown, its title over it."""
        lines = [self.title, "", "| " + " | ".join(self.headings) + " |"]
        lines.append("|" + "---|" * len(self.headings))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines)


def time_tables(results: Sequence[SpeedResult]) -> list[SpeedTable]:
    """Times and their ratios, one table per batch of prompts."""
    headings = ("Scorer", "Kept", "First token", "to full", "to ideal", "Next token", "to full")
    return [
        SpeedTable(
            f"{_prompts(own[0])}: times, without {_time(own[0].vision)} of vision",
            headings,
            [
                (
                    result.scorer or _FULL,
                    str(result.kept_visual_tokens),
                    _time(result.first_token),
                    _ratio(result.to_full),
                    _ratio(result.to_ideal),
                    _time(result.next_token),
                    _later_ratio(result.to_full),
                )
                for result in own
            ],
        )
        for own in _by_prompt(results)
    ]


def cost_tables(results: Sequence[SpeedResult]) -> list[SpeedTable]:
    """What scoring and rewriting take, and memory, one table per batch of prompts."""
    headings = ("Scorer", "Kept", "Scoring", "Rewriting", "KV cache", "to full", "Peak", "to full")
    return [
        SpeedTable(
            f"{_prompts(own[0])}: scoring, rewriting and memory",
            headings,
            [
                (
                    result.scorer or _FULL,
                    str(result.kept_visual_tokens),
                    _time(result.scoring),
                    _time(result.rewriting),
                    _bytes(result.kv_bytes),
                    _share(result.kv_bytes, own[0].kv_bytes, result.scorer),
                    _bytes(result.peak_bytes),
                    _share(result.peak_bytes, own[0].peak_bytes, result.scorer),
                )
                for result in own
            ],
        )
        for own in _by_prompt(results)
    ]


def depth_text(depth: Depth | None) -> str:
    """Which layers ran; "" if all did."""
    if depth is None or not (depth.missing or depth.missing_vision):
        return ""
    return (
        f"Scaled: {depth.layers} of {depth.of_layers} decoder layers and {depth.vision_layers} of "
        f"{depth.of_vision_layers} layers of the vision tower ran. Times and the KV cache are "
        "scaled to all of them, by the measured time of a layer; the peak is not."
    )


def _by_prompt(results: Sequence[SpeedResult]) -> list[list[SpeedResult]]:
    """Results of one batch of prompts each; the uncompressed model's begins it."""
    starts = [number for number, result in enumerate(results) if result.scorer is None]
    ends = [*starts[1:], len(results)]
    return [list(results[start:end]) for start, end in zip(starts, ends, strict=True)]


def _prompts(full: SpeedResult) -> str:
    batch = "" if full.batch_size == 1 else f"batch of {full.batch_size}, "
    return f"{batch}{full.visual_tokens:,} visual tokens of {full.prompt_tokens:,}"


def _time(spread: Spread | None) -> str:
    if spread is None:
        return _NOTHING
    median = spread.median
    if median >= _SECONDS_FROM:
        return f"{median / 1000:,.1f} s"
    return f"{median:,.0f} ms" if median >= 100 else f"{median:.1f} ms"


def _ratio(compared: Comparison | None) -> str:
    """The median for the first token, and half of the distance between the quartiles."""
    if compared is None:
        return _NOTHING
    low, high = compared.first_token.quartiles
    return f"{compared.first_token.median:.3f} ±{(high - low) / 2:.2f}"


def _later_ratio(compared: Comparison | None) -> str:
    later = None if compared is None else compared.next_token
    return _NOTHING if later is None else f"{later.median:.2f}"


def _bytes(count: int | None) -> str:
    return _NOTHING if count is None else f"{count / 2**20:,.1f} MiB"


def _share(count: int | None, full: int | None, scorer: str | None) -> str:
    return f"{count / full:.2f}" if count and full and scorer else _NOTHING
