"""Tokens that only separate others are kept first, within their share of the budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_token_compress.prompt import TokenGrid, VisualSpan
from hf_token_compress.selection import select_visual_tokens
from hf_token_compress.selection.floors import groups_of_visuals
from hf_token_compress.selection.structure import spread_evenly, structure_tokens

pytestmark = pytest.mark.core


def image(first: int, rows: int, columns: int, end: int = 0) -> VisualSpan:
    """An image of `rows` rows, each of `columns` tokens and a newline, and `end` tokens after."""
    cells = torch.arange(rows * (columns + 1)).view(1, rows, columns + 1)
    count = cells.numel() + end
    return VisualSpan(
        "image", torch.arange(first, first + count), (TokenGrid(cells[..., :columns]),)
    )


def test_structure_is_what_lies_on_no_grid() -> None:
    assert structure_tokens([image(5, 2, 3), image(20, 1, 2, end=2)]).tolist() == [3, 7, 10, 11, 12]


def test_an_image_without_a_grid_has_no_structure() -> None:
    """Where the tokens of a resampler lie is unknown: they do not separate others."""
    resampled = VisualSpan("image", torch.arange(9), ())
    assert structure_tokens([resampled, image(9, 2, 3)]).tolist() == [12, 16]
    assert structure_tokens([]).tolist() == []


@given(count=st.integers(0, 40), most=st.integers(0, 45))
def test_structure_is_spread_evenly(count: int, most: int) -> None:
    tokens = torch.arange(count) * 3
    spread = spread_evenly(tokens, most)
    assert len(spread) == min(count, most)
    places = spread // 3
    assert len(places.unique()) == len(places)
    # Any stretch has its part, within one token.
    for start in range(0, count, 7):
        part = ((places >= start) & (places < start + 14)).sum()
        stretch = min(count, start + 14) - start
        assert abs(int(part) - len(spread) * stretch / count) < 2


@given(
    images=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    budget=st.integers(0, 70),
    floor=st.integers(0, 4),
    share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    data=st.data(),
)
def test_structure_takes_its_share_and_nothing_of_budget_or_minimums(
    images: list[tuple[int, int]], budget: int, floor: int, share: float, data: st.DataObject
) -> None:
    spans = [image(0, *size) for size in images]
    lengths = [len(span.positions) for span in spans]
    structure = structure_tokens(spans)
    numbers = st.lists(st.integers(1, 5), min_size=sum(lengths), max_size=sum(lengths))
    scores = torch.tensor(data.draw(numbers)).float()
    scores[structure] = 0.0  # no score would keep them
    floors = [(groups_of_visuals(lengths), floor)]
    keep = select_visual_tokens(
        scores, budget, floors=floors, structure=structure, structure_share=share
    )
    needed = sum(min(floor, length) for length in lengths)
    assert int(keep.sum()) == min(max(budget, needed), len(scores))
    first = min(len(structure), int(share * budget), max(0, budget - needed))
    assert int(keep[structure].sum()) >= first
    others = torch.ones(len(scores), dtype=torch.bool)
    others[structure] = False
    if budget <= int(others.sum()) and needed <= budget:
        assert int(keep[structure].sum()) == first or floor > min(
            rows * columns for rows, columns in images
        )
    start = 0
    for (rows, columns), length in zip(images, lengths, strict=True):
        own = slice(start, start + length)
        assert int((keep & others)[own].sum()) >= min(floor, rows * columns)
        start += length


@given(share=st.floats(0.05, 1.0), limit=st.integers(4, 20))
def test_structure_counts_towards_top_p(share: float, limit: int) -> None:
    span = image(0, 4, 4)
    scores = torch.linspace(1, 2, 20)
    keep = select_visual_tokens(
        scores, limit, structure=structure_tokens([span]), structure_share=0.25, top_p=share
    )
    kept, total = float(scores[keep].sum()), float(scores.sum())
    assert kept >= share * total * (1 - 1e-6) or int(keep.sum()) == limit
    # One token less, the worst that is no structure, would be too little.
    others = keep.clone()
    others[structure_tokens([span])] = False
    if others.any():
        assert kept - float(scores[others].min()) < share * total
