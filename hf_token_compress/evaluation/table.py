"""An evaluation as rows of figures, and as tables to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .results import Evaluation, RetentionResult, SampleResult
from .statistics import Interval, mcnemar_p, paired_difference, percent_of_full

Row = dict[str, Any]

_RIGHT = 0.5
"""Score from which a question counts as answered."""


@dataclass(frozen=True)
class TextTable:
    """A table of texts: a title, the names of the columns, and rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table_rows(evaluation: Evaluation) -> list[Row]:
    """Figures of each setting as JSON types, the uncompressed model's first.

    Shares are in [0, 1]. "relative" is the share of the uncompressed model's accuracy,
    "percent_of_full" the same with its interval, "difference" the paired difference of the
    accuracies. Intervals are 95 % bootstrap intervals over images, as questions about one image are
    not independent; "mcnemar_p" takes questions as independent. "downsampling" has the accuracy
    over the questions that the uncompressed model answers, for those that it still answers and
    those that it does not answer from down-sampled images of the same budget.
    """
    full, *others = evaluation.results
    smaller = {own.setting.budget: own for own in others if own.setting.downsampled}
    return [_row(own, full, smaller.get(own.setting.budget)) for own in (full, *others)]


def sample_rows(result: RetentionResult) -> list[Row]:
    """What is known of each answer, as JSON types; what was not measured is left out."""
    return [_sample_row(sample) for sample in result.samples]


def cost_table(rows: Sequence[Row]) -> TextTable:
    """What each setting costs: tokens, accuracy, and the difference to the uncompressed model."""
    return _table(
        "Right answers, in percent",
        rows,
        {
            "tokens": _tokens,
            "right": lambda row: _percent(row["accuracy"]),
            "of full": lambda row: _percent(row["relative"]),
            "difference [95 %]": lambda row: _interval(row["difference"]),
            "p": lambda row: _p(row["mcnemar_p"]),
        },
    )


def agreement_table(rows: Sequence[Row]) -> TextTable:
    """How far answers stay those of the uncompressed model, which needs no right answers."""
    columns: dict[str, Callable[[Row], str]] = {
        "tokens": _tokens,
        "same answer": lambda row: _percent(row["agreement"]["value"]),
        "[95 %]": lambda row: _bounds(row["agreement"]),
    }
    if rows[0]["kl"] is not None:
        columns["KL"] = lambda row: f"{row['kl']:.3f}"
    if rows[0]["log_probability"] is not None:
        columns["log p"] = lambda row: f"{row['log_probability']:.2f}"
    return _table("Answers that stay the same, in percent", rows, columns)


def downsampling_table(rows: Sequence[Row]) -> TextTable | None:
    """Right answers among questions that down-sampled images answer, and among the others."""
    split = [row for row in rows if row["downsampling"] is not None]
    if not split:
        return None

    def cell(group: str) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            own = row["downsampling"][group]
            return f"{_percent(own['accuracy'])} of {own['asked']}"

        return text

    return _table(
        "Questions that down-sampled images still answer, and that they lose",
        split,
        {"tokens": _tokens, "still answered": cell("still_answered"), "lost": cell("lost")},
    )


def _table(
    title: str, rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]
) -> TextTable:
    cells = tuple((row["name"], *(text(row) for text in columns.values())) for row in rows)
    return TextTable(title, ("scorer", *columns), cells)


def _row(result: RetentionResult, full: RetentionResult, smaller: RetentionResult | None) -> Row:
    is_full, split_by = result is full, None if smaller is result else smaller
    pair = full.scores(), result.scores()
    has_right = full.accuracy() > 0
    samples, clusters = result.samples, result.clusters
    agreed = np.array([sample.agrees for sample in samples], dtype=np.float64)
    _, most, top_p = result.setting.budget
    return {
        "scorer": "full" if is_full else result.scorer,
        "name": result.setting.name,
        "retention_ratio": result.retention_ratio,
        "max_visual_tokens": most,
        "top_p": top_p,
        "kept_share": result.kept_share,
        "visual_tokens": result.visual_tokens,
        **_accuracies(result, full, None),
        "percent_of_full": (
            asdict(percent_of_full(*pair, clusters=clusters)) if has_right else None
        ),
        "difference": None if is_full else asdict(paired_difference(*pair, clusters=clusters)),
        "mcnemar_p": None if is_full else mcnemar_p(*pair),
        "agreement": asdict(_mean(agreed, clusters)),
        "kl": _mean_of(samples, "kl"),
        "log_probability": _mean_of(samples, "log_probability"),
        "downsampling": None if split_by is None else _split(result, full, split_by),
        "kinds": {kind: _accuracies(result, full, kind) for kind in result.asked},
    }


def _accuracies(result: RetentionResult, full: RetentionResult, kind: str | None) -> Row:
    whole = full.accuracy(kind)
    return {
        "accuracy": result.accuracy(kind),
        "relative": result.accuracy(kind) / whole if whole > 0 else None,
        "standard_error": result.standard_error(kind),
        "asked": len(result.scores(kind)),
    }


def _split(result: RetentionResult, full: RetentionResult, smaller: RetentionResult) -> Row:
    answered = full.scores() >= _RIGHT
    still = answered & (smaller.scores() >= _RIGHT)
    found = {}
    for name, group in (("still_answered", still), ("lost", answered & ~still)):
        own = result.scores()[group]
        found[name] = {
            "asked": len(own),
            "accuracy": float(own.mean()) if len(own) else None,
        }
    return found


def _mean(values: np.ndarray, clusters: Sequence[str]) -> Interval:
    """The mean with its interval."""
    return paired_difference(np.zeros_like(values), values, clusters=clusters)


def _mean_of(samples: Sequence[SampleResult], name: str) -> float | None:
    found = [getattr(sample, name) for sample in samples]
    return None if None in found else sum(found) / len(found)


def _sample_row(sample: SampleResult) -> Row:
    fields = asdict(sample)
    del fields["first_tokens"]
    return {name: value for name, value in fields.items() if value is not None}


def _tokens(row: Row) -> str:
    return f"{row['visual_tokens']:.0f} ({row['kept_share']:.0%})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _bounds(interval: Mapping[str, float]) -> str:
    return f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _interval(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{100 * interval['value']:+.1f} {_bounds(interval)}"


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "<.001" if p < 0.0005 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"
