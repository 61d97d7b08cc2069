"""Rules that choose a set of tokens, against loops written from their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from errors import one_sentence
from made_prompts import made_prompt
from torch import Tensor

from hf_token_compress.scorers import build_scorer
from hf_token_compress.selection import Candidates

pytestmark = pytest.mark.core

TOKENS, DIMENSIONS, WORDS = 13, 5, 3


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [N, D], words [R, D] and importances [N]."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(TOKENS, DIMENSIONS, generator=generator) + 0.5
    words = torch.randn(WORDS, DIMENSIONS, generator=generator)
    return visual, words, torch.rand(TOKENS, generator=generator)


def chosen_by(
    name: str,
    visual: Tensor,
    words: Tensor,
    count: int,
    kept: list[int],
    scores: Tensor | None = None,
    **options: Any,
) -> list[int]:
    """What a scorer chooses, in its order."""
    scorer = build_scorer(name, options)
    prompt = made_prompt(visual, words)
    if scores is None:
        scores = scorer.score(prompt)[prompt.visual_mask]
    mask = torch.zeros(len(visual), dtype=torch.bool)
    mask[kept] = True
    candidates = Candidates(scores, mask, count, lambda: visual)
    found = scorer.select(prompt, 0, candidates)
    assert found is not None
    assert found.dtype == torch.int64
    return [int(index) for index in found]


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"importance": "uniform"}, ("importance", "uniform", "order")),
        (ValueError, {"importance": "mapper"}, ("mapper", "needs the option")),
        (TypeError, {"importance_options": 0}, ("importance_options", "int")),
    ],
)
def test_importance_that_cannot_be_used(
    error: type[Exception], options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with one_sentence(error, *words):
        build_scorer("zoo_prune", options)


def cosines_of(visual: Tensor) -> list[list[float]]:
    rows = visual.double().tolist()

    def dot(a: list[float], b: list[float]) -> float:
        return sum(own * other for own, other in zip(a, b, strict=True))

    def cosine(a: list[float], b: list[float]) -> float:
        return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))

    return [[cosine(a, b) for b in rows] for a in rows]


def greedily(count: int, kept: list[int], value: Callable[[int, list[int]], float]) -> list[int]:
    """The best token by `value(token, taken)`, again and again."""
    taken, chosen = list(kept), []
    for _ in range(count):
        free = [token for token in range(TOKENS) if token not in taken]
        best = max(free, key=lambda token: value(token, taken))
        taken.append(best)
        chosen.append(best)
    return chosen


def scaled(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


each_draw = pytest.mark.parametrize("seed", range(4))
each_kept = pytest.mark.parametrize("kept", [[], [2, 7]], ids=["none kept", "two kept"])


@each_draw
@each_kept
def test_divprune_is_farthest_point_sampling(seed: int, kept: list[int]) -> None:
    visual, words, _ = drawn(seed)
    cosines = cosines_of(visual)

    def distance(token: int, taken: list[int]) -> float:
        others = taken or [other for other in range(TOKENS) if other != token]
        return min(1 - cosines[token][other] for other in others)

    assert chosen_by("divprune", visual, words, 6, kept) == greedily(6, kept, distance)


def test_divprune_keeps_corners_of_a_half_circle() -> None:
    """At 0, 10, 20, 90 and 180 degrees: 180 is farthest from its neighbour, then 0, then 90."""
    angles = torch.tensor([0.0, 10, 20, 85, 180]).deg2rad()
    visual = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert chosen_by("divprune", visual, visual[:1], 3, []) == [4, 0, 3]


@each_draw
@each_kept
@pytest.mark.parametrize("balance", [0.5, 0.9])
def test_idpruner_weighs_importance_against_similarity(
    seed: int, kept: list[int], balance: float
) -> None:
    visual, words, scores = drawn(seed)
    cosines, importance = cosines_of(visual), scaled(scores.tolist())

    def value(token: int, taken: list[int]) -> float:
        if not taken:
            return importance[token]
        largest = max(cosines[token][other] for other in taken)
        return balance * importance[token] - (1 - balance) * largest

    found = chosen_by("idpruner", visual, words, 6, kept, scores, balance=balance)
    assert found == greedily(6, kept, value)


@each_draw
@each_kept
def test_zoo_prune_multiplies_importance_and_distance(seed: int, kept: list[int]) -> None:
    visual, words, scores = drawn(seed)
    cosines, importance = cosines_of(visual), scaled(scores.tolist())

    def value(token: int, taken: list[int]) -> float:
        return importance[token] * (1 - max([-1.0, *(cosines[token][own] for own in taken)]))

    assert chosen_by("zoo_prune", visual, words, 6, kept, scores) == greedily(6, kept, value)


@each_draw
@each_kept
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_scope_multiplies_the_gain_in_coverage_and_saliency(
    seed: int, kept: list[int], alpha: float
) -> None:
    visual, words, scores = drawn(seed)
    cosines = cosines_of(visual)

    def value(token: int, taken: list[int]) -> float:
        gain = 0.0
        for other in range(TOKENS):
            covered = max([0.0, *(cosines[other][own] for own in taken)])
            gain += max(0.0, cosines[other][token] - covered)
        return gain * float(scores[token]) ** alpha

    found = chosen_by("scope", visual, words, 5, kept, scores, alpha=alpha)
    assert found == greedily(5, kept, value)


@each_draw
@each_kept
@pytest.mark.parametrize("theta", [None, 0.5])
def test_cdpruner_maximises_the_determinant(
    seed: int, kept: list[int], theta: float | None
) -> None:
    """Each choice has the largest determinant of the kernel over what is kept then."""
    visual, words, _ = drawn(seed)
    cosines = torch.tensor(cosines_of(visual))
    unit = torch.nn.functional.normalize(words.double(), dim=1)
    relevance = (torch.nn.functional.normalize(visual.double(), dim=1) @ unit.T).mean(1).tolist()
    weights = scaled(relevance)
    if theta is not None:
        weights = [math.exp(own * theta / (2 * (1 - theta))) for own in weights]
    # A kept token of no weight would make every determinant zero.
    weight = torch.tensor(weights).double().clamp(min=1e-3)
    kernel = weight[:, None] * cosines.double() * weight

    def value(token: int, taken: list[int]) -> float:
        own = [*taken, token]
        return float(torch.linalg.det(kernel[own][:, own]))

    count = DIMENSIONS - len(kept)
    found = chosen_by("cdpruner", visual, words, count, kept, theta=theta)
    assert found == greedily(count, kept, value)


def test_cdpruner_goes_on_by_relevance_where_all_directions_are_used_up() -> None:
    """Three directions in the plane: after two, the determinant is zero for every other token."""
    visual = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2], [1.0, 0.5]])
    found = chosen_by("cdpruner", visual, torch.tensor([[1.0, 0.0]]), 4, [], theta=0.5)
    assert found == [0, 2, 1, 3]


def test_dart_adds_what_is_least_like_each_pivot() -> None:
    """L1 norms make token 1 the visual pivot, and the second word the text pivot.

    Of the two other tokens, the visual pivot (east) adds the western one; the text pivot (north)
    then adds the southern one.
    """
    visual = torch.tensor([[1.0, 0.2], [9.0, 0.0], [0.1, -1.0], [-1.0, -0.1], [0.2, 1.0]])
    words = torch.tensor([[0.3, 0.0], [0.0, 7.0]])
    options = {"visual_pivots": 1, "text_pivots": 1}
    assert chosen_by("dart", visual, words, 3, [], **options) == [1, 3, 2]
    # A pivot that is kept already costs no place.
    assert chosen_by("dart", visual, words, 2, [1], **options) == [3, 2]
    # Of three places, the first pivot fills two.
    assert chosen_by("dart", visual, words, 3, [1], **options) == [3, 2, 0]
    assert chosen_by("dart", visual, words, 1, [], **options) == [1]


def test_vispruner_keeps_the_salient_and_drops_duplicates() -> None:
    """Tokens 0 and 5 are salient. The others, in order: east, north, east, south, west, north.

    First round: at even places are 1 (east), 3 (east) and 6 (west), at odd places 2 (north),
    4 (south) and 7 (north); none alike. Token 1 is as like as any, and goes first; token 3 next.
    """
    east, north, south, west = [1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]
    visual = torch.tensor([east, east, north, east, south, south, west, north])
    scores = torch.tensor([0.9, 0.1, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1])
    one = chosen_by("vispruner", visual, visual[:1], 4, [], scores, removed_per_round=1)
    # Rounds of one: 1 goes; then 2, 4, 7 face 3, 6, and 2 goes; then 3, 6 face 4, 7, and 3 goes;
    # then 4, 7 face 6, and 4 goes.
    assert one == [0, 5, 6, 7]
    both = chosen_by("vispruner", visual, visual[:1], 4, [], scores, removed_per_round=8)
    # The first round takes 1, 3 and 6; then 2 and 7 face 4, and 2 goes.
    assert both == [0, 5, 4, 7]
    # A salient token that is kept already counts as one of the two.
    assert chosen_by("vispruner", visual, visual[:1], 3, [5], scores, removed_per_round=8) == [
        0, 4, 7
    ]  # fmt: skip


def test_vispruner_drops_the_most_similar_first() -> None:
    """Degrees 0, 30, 90, 92: the even 90 is like the odd 92, and goes."""
    angles = torch.tensor([0.0, 30, 90, 92]).deg2rad()
    visual = torch.stack([angles.cos(), angles.sin()], dim=1)
    options = {"salient_share": 0, "removed_per_round": 1}
    found = chosen_by("vispruner", visual, visual[:1], 3, [], torch.ones(4), **options)
    assert found == [0, 1, 3]


def test_prumerge_keeps_outliers_and_spreads_the_rest() -> None:
    """Quartiles of the attention are 1 and 2, so that outliers are above 3.5: tokens 3 and 6.

    Of the others, ordered dithering of a row of nine takes tokens 0, 4 and 8 before the rest.
    """
    visual = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    scores = torch.tensor([1.0, 1, 2, 9, 2, 1, 5, 1, 1])
    words = visual[:1]
    assert chosen_by("prumerge", visual, words, 4, [], scores)[:2] == [3, 6]
    assert sorted(chosen_by("prumerge", visual, words, 5, [], scores)) == [0, 3, 4, 6, 8]
    assert chosen_by("prumerge", visual, words, 1, [3], scores) == [6]
