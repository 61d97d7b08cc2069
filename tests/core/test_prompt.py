"""Which positions belong to which image, and which tokens are the instruction."""

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
    """Placeholder mask, layouts over the batch, and the positions of each visual of each prompt."""
    layouts, positions, lengths = [], [], []
    for visuals, tail in batch:
        own, at = [], 0
        for gap, grid in visuals:
            layout = VisualLayout.row_major(*grid)
            own.append(list(range(at + gap, at + gap + layout.count)))
            at += gap + layout.count
            layouts.append(layout)
        positions.append(own)
        lengths.append(at + tail)
    mask = torch.zeros(len(batch), max(1, *lengths), dtype=torch.bool)
    for sample, own in enumerate(positions):
        for visual in own:
            mask[sample, visual] = True
    return mask, layouts, positions


def test_prompts_without_images_may_have_empty_entries() -> None:
    """Some models return one entry per prompt, whether it has images or not."""
    mask = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]).bool()
    layouts = [VisualLayout.row_major(1, 1, count) for count in (0, 2, 0, 1, 0)]
    spans = find_visual_spans(mask, layouts, "image")
    found = [span.positions.tolist() for own in spans for span in own]
    assert found == [[], [1, 2], [], [0], []]


@given(batches)
def test_spans_of_ragged_batches(batch: Any) -> None:
    mask, layouts, positions = laid_out(batch)
    spans = find_visual_spans(mask, layouts, "image")
    assert [[span.positions.tolist() for span in own] for own in spans] == positions
    given = [span.grids for own in spans for span in own]
    assert given == [layout.grids for layout in layouts]
    assert {span.modality for own in spans for span in own} <= {"image"}


@given(batches, st.data())
def test_a_missing_placeholder_is_found(batch: Any, data: st.DataObject) -> None:
    mask, layouts, _ = laid_out(batch)
    present = mask.nonzero()
    assume(len(present))
    sample, position = data.draw(st.sampled_from(present.tolist()))
    mask[sample, position] = False
    with one_sentence(ValueError, "video", "placeholders"):
        find_visual_spans(mask, layouts, "video")


@given(batches, st.data())
def test_an_extra_placeholder_is_found(batch: Any, data: st.DataObject) -> None:
    mask, layouts, _ = laid_out(batch)
    absent = (~mask).nonzero()
    assume(len(absent))
    sample, position = data.draw(st.sampled_from(absent.tolist()))
    mask[sample, position] = True
    with one_sentence(ValueError, "image", "placeholders"):
        find_visual_spans(mask, layouts, "image")


def masks(prompts: Sequence[str]) -> list[Tensor]:
    """Text, visual tokens and turn ends of prompts in the letters of `instruction`."""
    return [
        torch.tensor([[token == letter for token in prompt] for prompt in prompts])
        for letter in "tve"
    ]


def instruction(prompts: Sequence[str], scope: Any) -> list[str]:
    """Instruction of prompts in letters: t text, v visual, e turn end, s structure, . padding.

    Every token that is not instruction becomes a dash.
    """

    chosen, _ = find_instruction_tokens(*masks(prompts), scope)
    return [
        "".join(token if kept else "-" for token, kept in zip(prompt, mask, strict=True))
        for prompt, mask in zip(prompts, chosen.tolist(), strict=True)
    ]


def check(prompt: str, scope: str, expected: str) -> None:
    assert instruction([prompt], scope) == [expected]


def test_question_after_the_image() -> None:
    prompt = "ttsvvvvstttett"
    check(prompt, "last_turn", "--------ttt---")
    check(prompt, "after_visual", "--------ttt-tt")
    check(prompt, "all_text", "tt------ttt-tt")


def test_several_turns_after_the_image() -> None:
    """The last closed turn is the question; the open one is the start of the answer."""
    check("tsvvstttetttetttettt", "last_turn", "-------------ttt----")
    check("tsvvstttetttetttettt", "after_visual", "-----ttt-ttt-ttt-ttt")


def test_an_open_question_without_turn_ends() -> None:
    check("tsvvvsttt", "last_turn", "------ttt")


def test_an_empty_last_turn_is_skipped() -> None:
    check("svvsttteet", "last_turn", "----ttt---")


def test_turns_before_the_image_do_not_count() -> None:
    check("tttetttetsvvvstttet", "last_turn", "--------------ttt--")
    check("svvsttettsvvsttet", "last_turn", "-------------tt--")


def test_text_after_the_last_of_several_images() -> None:
    check("tsvvsttsvvsttte", "last_turn", "-----------ttt-")
    check("tsvvsttsvvsttte", "all_text", "t----tt----ttt-")


def test_question_before_the_image() -> None:
    """With no question after the image, the last token stands in: it sees everything."""
    check("ttttsvvvvse", "last_turn", "----------e")
    check("ttttsvvvvsett", "last_turn", "-----------tt")
    check("ttttsvvvvse", "after_visual", "----------e")
    check("ttttsvvvvse", "all_text", "tttt-------")


@pytest.mark.parametrize("scope", ["last_turn", "after_visual", "all_text"])
def test_prompts_without_a_question_after_their_images_are_told(scope: Any) -> None:
    asked = ["ttsvvstttett", "tsvvsttt....", "tsvvsttettet", "tttettet....", "svvsvvsttett"]
    unasked = ["ttttsvvvvse.", "ttttsvvvvset", "ttttsvvvv...", "svvsttettsvv", "svvsttsvvset"]
    assert find_instruction_tokens(*masks(asked), scope)[1]
    for prompt in unasked:
        assert not find_instruction_tokens(*masks([*asked, prompt]), scope)[1], prompt


def test_an_image_at_the_end() -> None:
    check("ttttsvvvv", "last_turn", "--------v")


def test_an_image_without_text() -> None:
    for scope in ("last_turn", "after_visual", "all_text"):
        check("vvvv", scope, "---v")


def test_padding_is_never_chosen() -> None:
    prompts = ["....tsvvstte", "tsvvstte....", "ttttsvvvvse."]
    assert instruction(prompts, "last_turn") == ["---------tt-", "-----tt-----", "----------e-"]
    assert instruction(prompts, "all_text") == ["----t----tt-", "t----tt-----", "tttt--------"]


def test_the_last_turn_of_a_text_only_prompt() -> None:
    check("tttetttett", "last_turn", "----ttt---")
    check("ttt", "last_turn", "ttt")


@given(
    prompts=st.integers(1, 14).flatmap(
        lambda size: st.lists(
            st.text("tves.", min_size=size, max_size=size), min_size=1, max_size=4
        )
    ),
    scope=st.sampled_from(["last_turn", "after_visual", "all_text"]),
)
def test_every_prompt_has_an_instruction_that_sees_its_images(
    prompts: list[str], scope: str
) -> None:
    assume(all(set(prompt) & set("tve") for prompt in prompts))
    chosen = instruction(prompts, scope)
    assert chosen == [instruction([prompt], scope)[0] for prompt in prompts]
    for prompt, marked in zip(prompts, chosen, strict=True):
        picked = [position for position, token in enumerate(marked) if token != "-"]
        assert picked
        assert all(prompt[position] not in ".s" for position in picked)
        if scope != "all_text" and any(prompt[position] == "t" for position in picked):
            assert min(picked) > prompt.rfind("v")
