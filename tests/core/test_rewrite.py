"""The rewrite against plain Python, sample by sample."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_token_compress.rewrite import (
    compact_position_ids,
    gather_positions,
    kept_positions,
    restore_prompt,
)

pytestmark = pytest.mark.core

sides = st.sampled_from(["left", "right"])
masks = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
    lambda shape: st.lists(
        st.lists(st.booleans(), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


def padded(samples: list[list[int]], side: str, fill: int) -> Tensor:
    longest = max(map(len, samples))
    fills = [[fill] * (longest - len(own)) for own in samples]
    pairs = zip(samples, fills, strict=True)
    both = [fill + own if side == "left" else own + fill for own, fill in pairs]
    return torch.tensor(both, dtype=torch.long).reshape(len(samples), longest)


@given(mask=masks, side=sides)
def test_kept_positions_are_in_order(
    mask: list[list[bool]], side: Literal["left", "right"]
) -> None:
    expected = [[position for position, kept in enumerate(own) if kept] for own in mask]
    assert torch.equal(kept_positions(torch.tensor(mask), side), padded(expected, side, -1))


@given(mask=masks, side=sides, axes=st.integers(1, 4))
def test_gather_takes_the_kept_values_in_order(
    mask: list[list[bool]], side: Literal["left", "right"], axes: int
) -> None:
    keep = torch.tensor(mask)
    index = kept_positions(keep, side)
    ids = torch.arange(keep.numel()).view_as(keep)
    samples = [own[kept].tolist() for own, kept in zip(ids, keep, strict=True)]
    expected = padded(samples, side, -7)
    assert torch.equal(gather_positions(ids, index, -7), expected)
    stacked = torch.stack([ids * (axis + 1) for axis in range(axes)])
    gathered = gather_positions(stacked, index, 0)
    for axis in range(axes):
        assert torch.equal(gathered[axis], expected.where(expected >= 0, 0) * (axis + 1))


@given(mask=masks, side=sides)
def test_gather_keeps_the_type(mask: list[list[bool]], side: Literal["left", "right"]) -> None:
    index = kept_positions(torch.tensor(mask), side)
    for values, fill in ((torch.rand(len(mask), len(mask[0])), 0.5), (torch.tensor(mask), False)):
        gathered = gather_positions(values, index, fill)
        assert gathered.dtype == values.dtype
        assert bool((gathered[index < 0] == fill).all())


@given(mask=masks, side=sides, data=st.data())
def test_compact_positions(
    mask: list[list[bool]], side: Literal["left", "right"], data: st.DataObject
) -> None:
    index = kept_positions(torch.tensor(mask), side)
    shortened = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(mask), max_size=len(mask)))
    )
    positions = torch.randint(0, 99, (3, *index.shape))
    compact = compact_position_ids(positions, shortened, index >= 0)
    for sample in range(len(mask)):
        if not shortened[sample]:
            assert torch.equal(compact[:, sample], positions[:, sample])
            continue
        real = index[sample] >= 0
        counted = torch.arange(int(real.sum())).expand(3, -1)
        assert torch.equal(compact[:, sample][:, real], counted)


@given(
    batch=st.integers(1, 4),
    copies=st.integers(1, 3),
    whole=st.integers(0, 9),
    short=st.integers(0, 9),
    new=st.integers(0, 5),
)
def test_restored_sequences_are_prompt_then_answer(
    batch: int, copies: int, whole: int, short: int, new: int
) -> None:
    prompts = torch.arange(batch * whole).view(batch, whole)
    answers = 1000 + torch.arange(batch * copies * new).view(batch * copies, new)
    shorter = torch.full((batch * copies, short), -5)
    restored = restore_prompt(torch.cat([shorter, answers], dim=1), prompts, short)
    assert restored.shape == (batch * copies, whole + new)
    for sequence in range(batch * copies):
        assert torch.equal(restored[sequence, :whole], prompts[sequence // copies])
        assert torch.equal(restored[sequence, whole:], answers[sequence])
