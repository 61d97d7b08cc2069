"""Which columns belong to which image, and which rows ask the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hf_token_compress.prompt import VisualLayout, find_instruction_tokens, find_visual_spans

pytestmark = pytest.mark.core

grids = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
# For each prompt, its visuals, each with the text tokens before it; then the tokens at the end.
batches = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 3), grids), max_size=3), st.integers(0, 3)),
    min_size=1,
    max_size=4,
)


def laid_out(batch: Any) -> tuple[Tensor, list[VisualLayout], list[list[list[int]]]]:
    """Placeholder mask, layouts over the batch, and the columns of each visual of each prompt."""
    layouts, columns, lengths = [], [], []
    for visuals, tail in batch:
        row, at = [], 0
        for gap, grid in visuals:
            layout = VisualLayout.row_major(*grid)
            row.append(list(range(at + gap, at + gap + layout.count)))
            at += gap + layout.count
            layouts.append(layout)
        columns.append(row)
        lengths.append(at + tail)
    mask = torch.zeros(len(batch), max(1, *lengths), dtype=torch.bool)
    for number, row in enumerate(columns):
        for visual in row:
            mask[number, visual] = True
    return mask, layouts, columns


@given(batches)
def test_spans_of_ragged_batches(batch: Any) -> None:
    mask, layouts, columns = laid_out(batch)
    spans = find_visual_spans(mask, layouts, "image")
    assert [[span.positions.tolist() for span in row] for row in spans] == columns
    given = [span.grids for row in spans for span in row]
    assert given == [layout.grids for layout in layouts]
    assert {span.modality for row in spans for span in row} <= {"image"}


@given(batches, st.data())
def test_a_missing_placeholder_is_found(batch: Any, data: st.DataObject) -> None:
    mask, layouts, _ = laid_out(batch)
    present = mask.nonzero()
    assume(len(present))
    row, column = data.draw(st.sampled_from(present.tolist()))
    mask[row, column] = False
    with one_sentence(ValueError, "video", "untruncated"):
        find_visual_spans(mask, layouts, "video")


@given(batches, st.data())
def test_an_extra_placeholder_is_found(batch: Any, data: st.DataObject) -> None:
    mask, layouts, _ = laid_out(batch)
    absent = (~mask).nonzero()
    assume(len(absent))
    row, column = data.draw(st.sampled_from(absent.tolist()))
    mask[row, column] = True
    with one_sentence(ValueError, "image", "untruncated"):
        find_visual_spans(mask, layouts, "image")


def instruction(rows: Sequence[str], policy: Any) -> list[str]:
    """Chosen columns of prompts in letters: t text, v visual, e turn end, s structure, . padding.

    Chosen letters are shown as they are, all others as a dash.
    """

    def where(letter: str) -> Tensor:
        return torch.tensor([[column == letter for column in row] for row in rows])

    chosen = find_instruction_tokens(where("t"), where("v"), where("e"), policy)
    return [
        "".join(letter if kept else "-" for letter, kept in zip(row, mask, strict=True))
        for row, mask in zip(rows, chosen.tolist(), strict=True)
    ]


def check(prompt: str, policy: str, expected: str) -> None:
    assert instruction([prompt], policy) == [expected]


def test_question_after_the_picture() -> None:
    prompt = "ttsvvvvstttett"
    check(prompt, "last_turn", "--------ttt---")
    check(prompt, "after_visual", "--------ttt-tt")
    check(prompt, "all_text", "tt------ttt-tt")


def test_several_turns_after_the_picture() -> None:
    """The last closed turn asks; the open one is the start of the answer."""
    check("tsvvstttetttetttettt", "last_turn", "-------------ttt----")
    check("tsvvstttetttetttettt", "after_visual", "-----ttt-ttt-ttt-ttt")


def test_an_open_question_without_turn_ends() -> None:
    check("tsvvvsttt", "last_turn", "------ttt")


def test_an_empty_last_turn_is_passed_over() -> None:
    check("svvsttteet", "last_turn", "----ttt---")


def test_turns_before_the_picture_do_not_count() -> None:
    check("tttetttetsvvvstttet", "last_turn", "--------------ttt--")
    check("svvsttettsvvsttet", "last_turn", "-------------tt--")


def test_text_after_the_last_picture_of_several() -> None:
    check("tsvvsttsvvsttte", "last_turn", "-----------ttt-")
    check("tsvvsttsvvsttte", "all_text", "t----tt----ttt-")


def test_question_before_the_picture() -> None:
    """Nothing after the image asks: the last token, which sees everything, stands in."""
    check("ttttsvvvvse", "last_turn", "----------e")
    check("ttttsvvvvsett", "last_turn", "-----------tt")
    check("ttttsvvvvse", "after_visual", "----------e")
    check("ttttsvvvvse", "all_text", "tttt-------")


def test_a_picture_at_the_very_end() -> None:
    check("ttttsvvvv", "last_turn", "--------v")


def test_a_picture_alone() -> None:
    for policy in ("last_turn", "after_visual", "all_text"):
        check("vvvv", policy, "---v")


def test_padding_is_never_chosen() -> None:
    rows = ["....tsvvstte", "tsvvstte....", "ttttsvvvvse."]
    assert instruction(rows, "last_turn") == ["---------tt-", "-----tt-----", "----------e-"]
    assert instruction(rows, "all_text") == ["----t----tt-", "t----tt-----", "tttt--------"]


def test_text_only_prompts_ask_with_their_last_turn() -> None:
    check("tttetttett", "last_turn", "----ttt---")
    check("ttt", "last_turn", "ttt")


@given(
    rows=st.integers(1, 14).flatmap(
        lambda size: st.lists(
            st.text("tves.", min_size=size, max_size=size), min_size=1, max_size=4
        )
    ),
    policy=st.sampled_from(["last_turn", "after_visual", "all_text"]),
)
def test_every_prompt_has_an_instruction_that_sees_its_pictures(
    rows: list[str], policy: str
) -> None:
    assume(all(set(row) & set("tve") for row in rows))
    chosen = instruction(rows, policy)
    assert chosen == [instruction([row], policy)[0] for row in rows]
    for row, marked in zip(rows, chosen, strict=True):
        picked = [column for column, letter in enumerate(marked) if letter != "-"]
        assert picked
        assert all(row[column] != "." and row[column] != "s" for column in picked)
        if policy != "all_text" and any(row[column] == "t" for column in picked):
            assert min(picked) > row.rfind("v")
