"""Statistics of paired scores: what compression costs, and how sure that is.

Scores are arrays [N] of numbers in [0, 1], one per question and in the same order for the full and
the compressed model. Both answer the same questions, so differences are taken question by question
(Miller, "Adding Error Bars to Evals", arXiv 2411.00640). Questions about one image are not
independent; `clusters` names the image of each, and images take the place of questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ..checks import check_number

Scores = npt.NDArray[np.float64]
Clusters = Sequence[Hashable]

_RESAMPLES = 10_000
_BLOCK = 2**22
"""Most numbers that a block of resamples holds."""


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval.

    Attributes:
        value: The figure.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def wilson_interval(correct: float, asked: int, confidence: float = 0.95) -> Interval:
    """Accuracy and its score interval (Wilson, JASA 22, 1927).

    Args:
        correct: How many answers were right; a sum of graded scores gives a conservative interval.
        asked: How many questions were asked, independent of each other.
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ValueError: A number is out of range.
    """
    check_number("confidence", confidence, "(0, 1)")
    check_number("asked", asked, "[1, inf)")
    check_number("correct", correct, f"[0, {asked}]")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / asked
    center = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(share * (1 - share) / asked + (z / (2 * asked)) ** 2) / (1 + z * z / asked)
    return Interval(share, max(0.0, center - half), min(1.0, center + half))


def mcnemar_p(full: Scores, compressed: Scores) -> float:
    """Two-sided p-value of "both models are right equally often" (McNemar, Psychometrika 12, 1947).

    The exact test, from the binomial distribution of the questions on which the two differ. For
    graded scores it is the sign test. Questions count as independent.

    Args:
        full: Scores of the full model, [N].
        compressed: Scores of the compressed model, [N].

    Raises:
        ValueError: The arrays are not scores of the same questions.
    """
    sums = _cluster_sums(full, compressed, None)
    worse = int((sums[:, 0] > sums[:, 1]).sum())
    better = int((sums[:, 0] < sums[:, 1]).sum())
    term = tail = 1
    for drawn in range(min(worse, better)):
        term = term * (worse + better - drawn) // (drawn + 1)
        tail += term
    # Python divides whole numbers of any size without overflow.
    return min(1.0, 2 * tail / 2 ** (worse + better))


def paired_difference(
    full: Scores,
    compressed: Scores,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean score of the compressed model minus that of the full model.

    The interval is the percentile bootstrap over questions, or over images (Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993). It has no width where no score differs;
    `loss_upper_bound` remains informative there.

    Args:
        full: Scores of the full model, [N].
        compressed: Scores of the compressed model, [N].
        clusters: The image of each question; by default every question has its own.
        confidence: Of the two-sided interval, in (0, 1).
        seed: Of the resamples.

    Raises:
        ValueError: The arrays are not scores of the same questions, or a number is out of range.
    """
    sums = _cluster_sums(full, compressed, clusters)
    return _bootstrap(
        sums, lambda total: (total[..., 1] - total[..., 0]) / total[..., 2], confidence, seed
    )


def percent_of_full(
    full: Scores,
    compressed: Scores,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean score of the compressed model in percent of the full model's, with a bootstrap interval.

    Args and errors are those of `paired_difference`.

    Raises:
        ValueError: The full model scores 0 on every question, too.
    """
    sums = _cluster_sums(full, compressed, clusters)
    _refuse_zero(sums)
    return _bootstrap(sums, lambda total: 100 * total[..., 1] / total[..., 0], confidence, seed)


def loss_upper_bound(
    full: Scores,
    compressed: Scores,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
) -> float:
    """Percent of the full model's mean score that is lost at most, with that confidence.

    A one-sided bound of the ratio of two means by the delta method (Cochran, Sampling Techniques,
    1977, chapter 6), after z²/2 questions that were lost and z²/2 that were not are added, as
    Agresti and Coull add them to a proportion (The American Statistician 52, 1998). Without them
    the bound would be 0 where no answer differs. With k images instead of questions, an added one
    has as many questions as an image has on average.

    Args:
        full: Scores of the full model, [N].
        compressed: Scores of the compressed model, [N].
        clusters: The image of each question; by default every question has its own.
        confidence: Of the one-sided bound, in [0.5, 1).

    Returns:
        The bound; negative where the compressed model is better.

    Raises:
        ValueError: The arrays are not scores of the same questions, a number is out of range, or
            the full model scores 0 on every question.
    """
    check_number("confidence", confidence, "[0.5, 1)")
    sums = _cluster_sums(full, compressed, clusters)
    _refuse_zero(sums)
    z = NormalDist().inv_cdf(confidence)
    added, size = z * z / 2, sums[:, 2].mean()
    rows = np.vstack([sums[:, :2], [size, size], [size, 0.0]])  # [C + 2, 2]
    weights = np.append(np.ones(len(sums)), [added, added])  # [C + 2]
    full_total, compressed_total = weights @ rows
    kept = compressed_total / full_total
    residuals = rows[:, 1] - kept * rows[:, 0]  # [C + 2]
    error = math.sqrt(weights @ residuals**2) / full_total
    return float(100 * min(1.0, 1 - kept + z * error))


def _cluster_sums(full: Scores, compressed: Scores, clusters: Clusters | None) -> Scores:
    """Both scores and the number of questions, summed over each image, [C, 3]."""
    full, compressed = np.asarray(full, np.float64), np.asarray(compressed, np.float64)
    if full.ndim != 1 or full.shape != compressed.shape or not full.size:
        raise ValueError(
            "The scores of both models must be arrays [N] of the same questions, but their shapes "
            f"are {list(full.shape)} and {list(compressed.shape)}."
        )
    rows = np.stack([full, compressed, np.ones_like(full)], axis=1)  # [N, 3]
    if not ((rows >= 0) & (rows <= 1)).all():
        raise ValueError("Scores must be in [0, 1].")
    if clusters is None:
        return rows
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    if len(index) != len(rows):
        raise ValueError(f"There are {len(index)} clusters for {len(rows)} questions.")
    sums = np.zeros((len(numbers), 3))
    np.add.at(sums, index, rows)
    return sums


def _refuse_zero(sums: Scores) -> None:
    if not sums[:, 0].any():
        raise ValueError(
            "The full model scores 0 on every question, so there is nothing that could be lost: "
            "ask other questions, or choose another metric."
        )


def _bootstrap(
    sums: Scores, figure: Callable[[Scores], Scores], confidence: float, seed: int
) -> Interval:
    """A figure of the sums over all clusters, and the quantiles of it over resampled clusters."""
    check_number("confidence", confidence, "(0, 1)")
    # A resample is drawn as the number of times that each distinct row is in it.
    rows, counts = np.unique(sums, axis=0, return_counts=True)  # [U, 3], [U]
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(rows))
    sizes = [min(block, _RESAMPLES - start) for start in range(0, _RESAMPLES, block)]
    shares = counts / len(sums)
    totals = np.concatenate(
        [generator.multinomial(len(sums), shares, size=size) @ rows for size in sizes]
    )  # [R, 3]
    # A few resamples of very small data may have no right answer of the full model.
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = figure(totals)  # [R]
    tail = (1 - confidence) / 2
    low, high = np.quantile(figures[np.isfinite(figures)], [tail, 1 - tail])
    return Interval(float(figure(sums.sum(axis=0))), float(low), float(high))
