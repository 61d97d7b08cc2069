"""Random variants of samples: what may change and what must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mappers import make_input

from hf_token_compress.training.augmentation import augment

pytestmark = pytest.mark.core

shapes = st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=0, max_size=3)


def changed(item: Any, seed: int, **options: Any) -> Any:
    return augment(item, torch.Generator().manual_seed(seed), **options)


@given(shapes=shapes, seed=st.integers(0, 99))
def test_without_options_nothing_changes(shapes: Any, seed: int) -> None:
    item = make_input(*shapes, loose=2)
    same = changed(item, seed)
    assert torch.equal(same.attention, item.attention)
    assert torch.equal(same.text, item.text)
    assert torch.equal(same.embedding, item.embedding)
    assert all(map(torch.equal, same.grids, item.grids))


@given(shapes=shapes, seed=st.integers(0, 99))
def test_neighbours_stay_neighbours_after_a_flip(shapes: Any, seed: int) -> None:
    item = make_input(*shapes, loose=2)
    flipped = changed(item, seed, random_flip=True)
    assert torch.equal(flipped.attention, item.attention)
    for before, after in zip(item.grids, flipped.grids, strict=True):
        assert pairs(after) == pairs(before)
        for frame in range(len(before)):  # frames keep their order
            assert set(after[frame].flatten().tolist()) == set(before[frame].flatten().tolist())


def pairs(grid: torch.Tensor) -> set[frozenset[int]]:
    """Pairs of tokens that are horizontal or vertical neighbours."""
    found = [*zip(grid[:, 1:].flatten().tolist(), grid[:, :-1].flatten().tolist(), strict=True)]
    found += zip(grid[..., 1:].flatten().tolist(), grid[..., :-1].flatten().tolist(), strict=True)
    return {frozenset(pair) for pair in found}


def test_all_eight_flips_come_up() -> None:
    item = make_input((1, 2, 2))
    seen = {tuple(changed(item, seed, random_flip=True).grids[0].flatten()) for seed in range(200)}
    assert len({tuple(map(int, grid)) for grid in seen}) == 8


def test_a_dropped_head_is_constant_over_the_tokens() -> None:
    item = make_input((1, 3, 3))
    dropped = 0
    for seed in range(100):
        attention = changed(item, seed, head_dropout=0.3).attention
        even = (attention == attention[..., :1]).all(dim=-1)  # [2, heads]
        assert torch.equal(even[0], even[1])
        kept = ~even[0]
        assert torch.equal(attention[:, kept], item.attention[:, kept])
        dropped += int(even[0].sum())
    assert 0.2 < dropped / 300 < 0.4


def test_the_other_inputs_vary_in_units_of_their_own_deviation() -> None:
    item = make_input((1, 20, 20))
    item = replace(item, text=item.text * torch.tensor([[0.01], [100.0]]) + 5)
    noise = changed(item, 0, noise=0.5).text - item.text
    assert noise.std(1).tolist() == pytest.approx((item.text.std(1) * 0.5).tolist(), rel=0.2)
    dropped = 0
    for seed in range(100):
        other = changed(item, seed, head_dropout=0.3)
        for before, after in ((item.text, other.text), (item.embedding, other.embedding)):
            even = (after == after[:, :1]).all(dim=1)  # [2]
            assert torch.equal(after[~even], before[~even])
            torch.testing.assert_close(
                after[even], before.mean(1, keepdim=True).expand_as(before)[even]
            )
            dropped += int(even.sum())
    assert 0.2 < dropped / 400 < 0.4


def test_noise_has_the_requested_standard_deviation() -> None:
    item = make_input((1, 20, 20))
    difference = changed(item, 0, noise=0.5).attention - item.attention
    assert float(difference.std()) == pytest.approx(0.5, rel=0.1)
    assert abs(float(difference.mean())) < 0.05
