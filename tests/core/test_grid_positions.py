"""The policy "grid": by hand, and against prompts with smaller images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_token_compress.grid_positions import grid_position_ids

pytestmark = pytest.mark.core

Segment = int | tuple[int, int, int]
"""Tokens of text, or frames, rows and columns of an image or video."""

grids = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
prompts = st.lists(st.integers(1, 3) | grids, min_size=1, max_size=5)
axes = st.sampled_from([0, 3, 4])


def numbered(prompt: list[Segment], axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Position ids [A, 1, S] or [1, S] as stock models count, visual tokens, and first ones."""
    columns: list[tuple[int, ...]] = []
    visual, starts = [], []
    after = 0
    for segment in prompt:
        if isinstance(segment, int):
            columns += [(place,) * 3 for place in range(after, after + segment)]
            after += segment
            count = segment
        else:
            cells = torch.cartesian_prod(*(torch.arange(size) for size in segment)).view(-1, 3)
            columns += [tuple(cell) for cell in (cells + after).tolist()]
            after += max(segment[1:])
            count = len(cells)
        visual += [not isinstance(segment, int)] * count
        starts += [visual[-1] and number == 0 for number in range(count)]
    order = torch.arange(len(columns))
    ids = torch.tensor(columns).T[:, None]  # [3, 1, S]
    if axes == 4:
        ids = torch.cat([order[None, None], ids])
    return ids if axes else order[None], torch.tensor([visual]), torch.tensor([starts])


def moved(ids: Any, kept: list[int], visual: range, starts: list[int]) -> list[Any]:
    """New ids of the kept tokens of one prompt, [..., K]."""
    ids = torch.tensor(ids)[..., None, :]
    marks = torch.zeros(3, 1, ids.shape[-1], dtype=torch.bool)
    for mask, places in zip(marks, (kept, list(visual), starts), strict=True):
        mask[0, places] = True
    return grid_position_ids(ids, *marks)[..., 0, kept].tolist()


def test_text_follows_the_last_kept_token() -> None:
    ids = [0, 1, 2, 3, 4, 5, 6, 7]
    assert moved(ids, [0, 1, 3, 6, 7], range(2, 6), [2]) == [0, 1, 3, 4, 5]
    assert moved(ids, [0, 1, 5, 6, 7], range(2, 6), [2]) == [0, 1, 5, 6, 7]
    assert moved(ids, [0, 1, 6, 7], range(2, 6), [2]) == [0, 1, 2, 3]


def test_two_images_side_by_side() -> None:
    """The second one starts behind what is left of the first."""
    ids = [0, 1, 2, 3, 4, 5, 6]
    assert moved(ids, [0, 1, 5, 6], range(1, 6), [1, 4]) == [0, 1, 3, 4]


def test_text_follows_the_last_kept_row_or_column() -> None:
    """Two tokens of text, an image of two rows and three columns, and one token of text."""
    ids = [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]
    image = range(2, 8)
    # The last column is dropped.
    expected = [[0, 1, 2, 2, 4], [0, 1, 2, 3, 4], [0, 1, 3, 2, 4]]
    assert moved(ids, [0, 1, 3, 5, 8], image, [2]) == expected
    # The first column and the last row are dropped.
    expected = [[0, 1, 2, 2, 5], [0, 1, 2, 2, 5], [0, 1, 3, 4, 5]]
    assert moved(ids, [0, 1, 3, 4, 8], image, [2]) == expected
    assert moved(ids, [0, 1, 8], image, [2]) == [[0, 1, 2]] * 3


def test_time_does_not_move_text() -> None:
    """Four frames of one token run ahead of the text."""
    ids = [[0, 1, 2, 3, 4, 2], [0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2]]
    expected = [[0, 4, 2], [0, 1, 2], [0, 1, 2]]
    assert moved(ids, [0, 4, 5], range(1, 5), [1]) == expected


@given(prompt=prompts, axes=axes)
def test_keeping_all_changes_nothing(prompt: list[Segment], axes: int) -> None:
    ids, visual, starts = numbered(prompt, axes)
    assert torch.equal(grid_position_ids(ids, torch.ones_like(visual), visual, starts), ids)


@given(prompt=prompts, axes=axes, seed=st.integers(0, 99))
def test_order_and_grids_stay(prompt: list[Segment], axes: int, seed: int) -> None:
    ids, visual, starts = numbered(prompt, axes)
    generator = torch.Generator().manual_seed(seed)
    keep = ~visual | (torch.rand(visual.shape, generator=generator) < 0.3)
    new = grid_position_ids(ids, keep, visual, starts)
    # All axes move alike, and those of one image or one stretch of text.
    shifts = (ids - new).view(-1, visual.shape[1])
    assert (shifts == shifts[0]).all()
    edges = starts | (~visual & visual.roll(1, dims=1))
    inside = ~edges[0, 1:]
    assert (shifts[0].diff()[inside] == 0).all()
    # No shift ever shrinks, and text counts on.
    assert (shifts[0].diff() >= 0).all()
    text = new.view(-1, visual.shape[1])[-1, ~visual[0]]
    assert (text.diff() > 0).all()


@given(data=st.data(), axes=axes)
def test_text_stands_as_behind_smaller_images(data: st.DataObject, axes: int) -> None:
    """Those that end at the last token that is kept, of which others may be dropped too."""
    prompt = data.draw(prompts)
    smaller: list[Segment] = []
    keep: list[bool] = []
    for segment in prompt:
        if isinstance(segment, int):
            smaller.append(segment)
            keep += [True] * segment
            continue
        left = data.draw(st.tuples(*(st.integers(1, size) for size in segment)))
        if not axes:
            # In one order, an image ends with its last token.
            left = (1, 1, data.draw(st.integers(1, math.prod(segment))))
            last = torch.arange(math.prod(segment)) == left[2] - 1
        else:
            cells = torch.cartesian_prod(*(torch.arange(size) for size in segment)).view(-1, 3)
            last = (cells == torch.tensor(left) - 1).all(dim=1)
        smaller.append(left)
        keep += last.tolist()
    ids, visual, starts = numbered(prompt, axes)
    expected, small_visual, _ = numbered(smaller, axes)
    new = grid_position_ids(ids, torch.tensor([keep]), visual, starts)
    # The first of four axes counts the tokens, which the rewrite does anew.
    actual, expected = (own.view(-1, own.shape[-1])[-3:] for own in (new, expected))
    assert torch.equal(actual[:, ~visual[0]], expected[:, ~small_visual[0]])


@given(batch=st.lists(prompts, min_size=2, max_size=3), seed=st.integers(0, 99))
def test_a_padded_sample_equals_it_alone(batch: list[list[Segment]], seed: int) -> None:
    alone = [numbered(prompt, 3) for prompt in batch]
    longest = max(visual.shape[1] for _, visual, _ in alone)
    generator = torch.Generator().manual_seed(seed)
    keeps = [torch.rand(visual.shape, generator=generator) < 0.3 for _, visual, _ in alone]

    def padded(own: Tensor) -> Tensor:
        return torch.nn.functional.pad(own, (longest - own.shape[-1], 0))

    ids = torch.cat([padded(own) for own, _, _ in alone], dim=1)
    masks = [
        torch.cat([padded(own) for own in each])
        for each in (keeps, [visual for _, visual, _ in alone], [starts for _, _, starts in alone])
    ]
    together = grid_position_ids(ids, *masks)
    for number, ((own, *marks), keep) in enumerate(zip(alone, keeps, strict=True)):
        expected = grid_position_ids(own, keep, *marks)
        assert torch.equal(together[:, number, longest - own.shape[-1] :], expected[:, 0])
