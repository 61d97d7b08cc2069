"""Rules that budgets and selection obey for any scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.selection import select_visual_tokens, top_p_budget, visual_token_budget
from hf_token_compress.selection.floors import groups_of_visuals

pytestmark = pytest.mark.core


def budget_of(
    count: int,
    retention_ratio: float,
    min_visual_tokens: int = 0,
    max_visual_tokens: int | None = None,
) -> int:
    config = TokenCompressionConfig(
        retention_ratio=retention_ratio,
        min_visual_tokens=min_visual_tokens,
        max_visual_tokens=max_visual_tokens,
    )
    return visual_token_budget(count, config)


ratios = st.floats(0.001, 1.0)
# Few distinct values, so that ties are common.
score_lists = st.lists(st.integers(0, 6).map(lambda n: n / 4), min_size=1, max_size=40)
prompts = st.lists(st.integers(1, 9), min_size=1, max_size=5).flatmap(
    lambda lengths: st.tuples(
        st.just(lengths),
        st.lists(st.integers(-3, 3).map(float), min_size=sum(lengths), max_size=sum(lengths)),
    )
)


@given(count=st.integers(0, 5000), ratio=ratios)
def test_budget_is_the_nearest_share_and_at_least_one(count: int, ratio: float) -> None:
    budget = budget_of(count, ratio)
    assert 0 <= budget <= count
    if count:
        assert budget >= 1
        assert abs(budget - ratio * count) <= 0.5 or budget == 1


@given(count=st.integers(0, 5000))
def test_budget_at_ratio_one_is_everything(count: int) -> None:
    assert budget_of(count, 1.0) == count


@given(count=st.integers(0, 300), first=ratios, second=ratios)
def test_budget_grows_with_the_ratio(count: int, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert budget_of(count, low) <= budget_of(count, high)


@given(
    count=st.integers(0, 300),
    ratio=ratios,
    minimum=st.integers(0, 300),
    cap=st.none() | st.integers(1, 300),
)
def test_minimum_and_cap(count: int, ratio: float, minimum: int, cap: int | None) -> None:
    free = budget_of(count, ratio)
    budget = budget_of(count, ratio, min_visual_tokens=minimum, max_visual_tokens=cap)
    if count < minimum:
        assert budget == count
    elif cap is None:
        assert budget == free
    else:
        assert budget == min(free, cap)


@given(values=score_lists, share=st.floats(0.01, 1.0))
def test_top_p_is_the_smallest_number_that_reaches_the_share(
    values: list[float], share: float
) -> None:
    budget = top_p_budget(torch.tensor(values), share)
    ordered = sorted(values, reverse=True)
    total = math.fsum(values)
    if total == 0:
        assert budget == len(values)
        return
    assert math.fsum(ordered[:budget]) >= share * total * (1 - 1e-12)
    assert math.fsum(ordered[: budget - 1]) < share * total
    assert budget >= 1


@given(count=st.integers(1, 3000))
def test_top_p_of_one_needs_every_token_that_has_a_score(count: int) -> None:
    assert top_p_budget(torch.full((count,), 1.0 / count), 1.0) == count
    scores = torch.cat([torch.full((count,), 0.1), torch.zeros(3)])
    assert top_p_budget(scores, 1.0) == count


def test_top_p_of_an_easy_question_is_small() -> None:
    scores = torch.full((100,), 0.001)
    scores[7] = 10.0
    assert top_p_budget(scores, 0.9) == 1


@given(prompt=prompts, budget=st.integers(0, 50), floor=st.integers(0, 10))
def test_counts(prompt: tuple[list[int], list[float]], budget: int, floor: int) -> None:
    lengths, values = prompt
    floors = [(groups_of_visuals(lengths), floor)]
    keep = select_visual_tokens(torch.tensor(values), budget, floors=floors)
    needed = sum(min(floor, length) for length in lengths)
    assert keep.dtype == torch.bool
    assert int(keep.sum()) == min(max(budget, needed), len(values))
    for part, length in zip(keep.split(lengths), lengths, strict=True):
        assert int(part.sum()) >= min(floor, length)


@given(prompt=prompts, budget=st.integers(0, 50), floor=st.integers(0, 4))
def test_no_dropped_token_beats_a_kept_one_above_the_minimum(
    prompt: tuple[list[int], list[float]], budget: int, floor: int
) -> None:
    lengths, values = prompt
    scores = torch.tensor(values)
    keep = select_visual_tokens(scores, budget, floors=[(groups_of_visuals(lengths), floor)])
    start = 0
    free = torch.zeros_like(keep)
    for length in lengths:
        own, kept = scores[start : start + length], keep[start : start + length]
        assert not kept.any() or kept.all() or own[kept].min() >= own[~kept].max()
        # A visual with more than its floor could give up its worst kept tokens.
        if int(kept.sum()) > floor:
            free[start : start + length] = kept
        start += length
    if free.any() and not keep.all():
        assert scores[free].min() >= scores[~keep].max()


@given(
    frames=st.integers(1, 5),
    size=st.integers(1, 5),
    rest=st.integers(0, 3),
    budget=st.integers(0, 40),
    floor=st.integers(0, 6),
    data=st.data(),
)
def test_every_frame_keeps_its_best(
    frames: int, size: int, rest: int, budget: int, floor: int, data: st.DataObject
) -> None:
    """An image, then a video whose tokens come frame by frame, then tokens on no frame."""
    lengths = [4, frames * size + rest]
    numbers = st.lists(st.integers(-3, 3), min_size=sum(lengths), max_size=sum(lengths))
    scores = torch.tensor(data.draw(numbers)).float()
    on_frames = [torch.arange(size) + 4 + number * size for number in range(frames)]
    groups = torch.full_like(scores, -1, dtype=torch.long)
    for number, frame in enumerate(on_frames):
        groups[frame] = number
    keep = select_visual_tokens(scores, budget, floors=[(groups, floor)])
    assert int(keep.sum()) == min(max(budget, frames * min(floor, size)), len(scores))
    for frame in on_frames:
        kept = keep[frame]
        assert int(kept.sum()) >= min(floor, size)
        assert (
            not kept.any() or kept.all() or scores[frame][kept].min() >= scores[frame][~kept].max()
        )
    if budget <= frames * min(floor, size):
        assert not keep[:4].any()


@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3),
    rest=st.integers(0, 2),
    of_frame=st.integers(1, 3),
    of_video=st.integers(0, 5),
    budget=st.integers(0, 40),
    data=st.data(),
)
def test_what_frames_keep_counts_towards_the_minimum_of_their_video(
    shapes: list[tuple[int, int]],
    rest: int,
    of_frame: int,
    of_video: int,
    budget: int,
    data: st.DataObject,
) -> None:
    """Videos of (frames, tokens of a frame), each with tokens on no frame behind it."""
    lengths = [frames * size + rest for frames, size in shapes]
    groups, number = [], 0
    for frames, size in shapes:
        groups += [number + place // size for place in range(frames * size)] + [-1] * rest
        number += frames
    numbers = st.lists(st.integers(-3, 3), min_size=sum(lengths), max_size=sum(lengths))
    scores = torch.tensor(data.draw(numbers)).float()
    floors = [(torch.tensor(groups), of_frame), (groups_of_visuals(lengths), of_video)]
    keep = select_visual_tokens(scores, budget, floors=floors)
    needed = [
        max(frames * min(of_frame, size), min(of_video, length))
        for (frames, size), length in zip(shapes, lengths, strict=True)
    ]
    assert int(keep.sum()) == min(max(budget, sum(needed)), len(scores))
    for part, length in zip(keep.split(lengths), lengths, strict=True):
        assert int(part.sum()) >= min(of_video, length)


@given(values=score_lists, budget=st.integers(0, 45))
def test_between_equal_scores_the_earlier_wins(values: list[float], budget: int) -> None:
    keep = select_visual_tokens(torch.tensor(values), budget)
    for value in set(values):
        kept = [kept for kept, own in zip(keep.tolist(), values, strict=True) if own == value]
        assert kept == sorted(kept, reverse=True)


@given(data=st.data(), size=st.integers(1, 30))
def test_shuffling_distinct_scores_shuffles_the_choice(data: st.DataObject, size: int) -> None:
    order = torch.tensor(data.draw(st.permutations(range(size))))
    budget = data.draw(st.integers(0, size))
    scores: Tensor = torch.linspace(-1, 1, size)
    keep = select_visual_tokens(scores, budget)
    assert torch.equal(select_visual_tokens(scores[order], budget), keep[order])


@given(values=score_lists, first=st.integers(0, 45), second=st.integers(0, 45))
def test_a_larger_budget_keeps_all_that_a_smaller_one_keeps(
    values: list[float], first: int, second: int
) -> None:
    scores = torch.tensor(values)
    small, large = (select_visual_tokens(scores, budget) for budget in sorted((first, second)))
    assert not (small & ~large).any()


@given(values=score_lists, budget=st.integers(0, 45))
def test_only_the_order_of_the_scores_matters(values: list[float], budget: int) -> None:
    scores = torch.tensor(values)
    keep = select_visual_tokens(scores, budget)
    assert torch.equal(select_visual_tokens(scores * 3 - 100, budget), keep)
