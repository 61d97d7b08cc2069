"""Intervals and bounds of paired scores: known cases, equalities, and coverage in simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_token_compress.evaluation.statistics import (
    loss_upper_bound,
    mcnemar_p,
    paired_difference,
    percent_of_full,
    wilson_interval,
)

PAIRS = st.lists(
    st.tuples(st.sampled_from((0.0, 0.5, 1.0)), st.sampled_from((0.0, 0.5, 1.0))),
    min_size=1,
    max_size=40,
).map(np.array)


def answers(*, kept: int, lost: int, gained: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both models with so many questions of each kind."""
    counts = (kept, lost, gained, wrong)
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


@pytest.mark.parametrize(("correct", "asked"), [(0, 10), (8, 10), (81, 263), (5, 5)])
def test_wilson_interval_is_scipys(correct: int, asked: int) -> None:
    interval = wilson_interval(correct, asked, 0.9)
    expected = stats.binomtest(correct, asked).proportion_ci(0.9, method="wilson")
    assert interval.value == correct / asked
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_mcnemar_counts_the_questions_that_differ() -> None:
    # 8 differ: 2 (1 + 8) / 2^8. Questions on which both agree change nothing.
    assert mcnemar_p(*answers(kept=0, lost=7, gained=1, wrong=0)) == 18 / 256
    assert mcnemar_p(*answers(kept=50, lost=7, gained=1, wrong=9)) == 18 / 256
    assert mcnemar_p(*answers(kept=0, lost=2000, gained=1800, wrong=0)) == pytest.approx(
        stats.binomtest(1800, 3800).pvalue
    )


def test_points_and_percent_of_full() -> None:
    full, compressed = answers(kept=60, lost=20, gained=5, wrong=15)
    assert paired_difference(full, compressed).value == pytest.approx(-0.15)
    assert percent_of_full(full, compressed).value == pytest.approx(100 * 65 / 80)


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    full, compressed = answers(kept=60, lost=20, gained=5, wrong=15)
    found = paired_difference(full, compressed, confidence=0.9)
    expected = stats.bootstrap(
        (compressed - full,), np.mean, confidence_level=0.9, method="percentile", random_state=1
    ).confidence_interval
    # Both are quantiles of a grid of hundredths.
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.0101)


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_equal_scores_do_not_differ(pairs: np.ndarray) -> None:
    full = pairs[:, 0]
    difference = paired_difference(full, full)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert mcnemar_p(full, full) == 1


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_swapping_the_models_changes_the_sign(pairs: np.ndarray) -> None:
    full, compressed = pairs.T
    forth, back = paired_difference(full, compressed), paired_difference(compressed, full)
    assert forth.value == pytest.approx(-back.value)
    assert mcnemar_p(full, compressed) == mcnemar_p(compressed, full)


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_questions_changes_nothing(pairs: np.ndarray, random: object) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    images = np.arange(len(pairs)) // 3
    for clusters, shuffled in ((None, None), (images, images[order])):
        before = paired_difference(*pairs.T, clusters=clusters)
        after = paired_difference(*pairs[order].T, clusters=shuffled)
        assert (before.low, before.high) == (after.low, after.high)


def test_images_take_the_place_of_questions() -> None:
    """Four questions that always agree about their image are one question."""
    full, compressed = answers(kept=60, lost=20, gained=5, wrong=15)
    images = np.repeat(np.arange(100), 4)
    repeated = {"full": full.repeat(4), "compressed": compressed.repeat(4), "clusters": images}
    assert paired_difference(**repeated) == paired_difference(full, compressed)
    assert percent_of_full(**repeated) == percent_of_full(full, compressed)
    assert loss_upper_bound(**repeated) == pytest.approx(loss_upper_bound(full, compressed))


def test_bound_without_any_difference_is_the_one_of_a_share_of_zero() -> None:
    """Agresti and Coull's upper limit for 0 lost of 200 right answers."""
    z = 1.6448536269514722
    total = 200 + z * z
    share = (z * z / 2) / total
    bound = loss_upper_bound(*answers(kept=200, lost=0, gained=0, wrong=40))
    assert bound == pytest.approx(100 * (share + z * math.sqrt(share * (1 - share) / total)))


def test_bound_falls_with_more_questions_and_rises_with_confidence() -> None:
    few, many = ({"kept": 80 * n, "lost": 4 * n, "gained": 1 * n, "wrong": 15 * n} for n in (1, 9))
    estimate = 100 * 3 / 84
    assert loss_upper_bound(*answers(**few)) > loss_upper_bound(*answers(**many)) > estimate
    assert loss_upper_bound(*answers(**few), confidence=0.99) > loss_upper_bound(*answers(**few))


def simulated(
    generator: np.random.Generator, *, asked: int, right: float, lost: float, gained: float
) -> tuple[np.ndarray, np.ndarray]:
    """Independent questions of a known truth."""
    full = generator.random(asked) < right
    changed = generator.random(asked)
    compressed = np.where(full, changed >= lost, changed < gained)
    return full.astype(float), compressed.astype(float)


def test_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    right, lost, gained = 0.7, 0.1, 0.1
    difference = (1 - right) * gained - right * lost
    covered = [0, 0]
    for _ in range(200):
        pair = simulated(generator, asked=150, right=right, lost=lost, gained=gained)
        points, percent = paired_difference(*pair), percent_of_full(*pair)
        covered[0] += points.low <= difference <= points.high
        covered[1] += percent.low <= 100 * (right + difference) / right <= percent.high
    assert min(covered) >= 0.91 * 200


@pytest.mark.parametrize(
    ("asked", "right", "lost", "gained"),
    [(60, 1.0, 0.05, 0.0), (200, 0.9, 0.05, 0.01), (400, 0.6, 0.02, 0.0), (400, 0.5, 0.3, 0.1)],
)
def test_bound_holds_as_often_as_it_says(
    asked: int, right: float, lost: float, gained: float
) -> None:
    generator = np.random.default_rng(1)
    loss = 100 * (lost - (1 - right) * gained / right)
    held = 0
    for _ in range(1000):
        pair = simulated(generator, asked=asked, right=right, lost=lost, gained=gained)
        held += loss_upper_bound(*pair) >= loss
    assert held >= 940  # of 950, less 1.5 standard errors


def test_what_are_no_paired_scores_is_refused() -> None:
    ones = np.ones(3)
    with pytest.raises(ValueError, match=r"same questions, but their shapes are \[3\] and \[2\]"):
        paired_difference(ones, np.ones(2))
    with pytest.raises(ValueError, match=r"Scores must be in \[0, 1\]"):
        mcnemar_p(ones, 2 * ones)
    with pytest.raises(ValueError, match="2 clusters for 3 questions"):
        loss_upper_bound(ones, ones, clusters=["a", "b"])
    with pytest.raises(ValueError, match="scores 0 on every question"):
        percent_of_full(0 * ones, ones)
    with pytest.raises(ValueError, match=r"confidence must be in \[0.5, 1\), but it is 1"):
        loss_upper_bound(ones, ones, confidence=1)
