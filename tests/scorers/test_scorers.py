"""The built-in scorers one by one, and scorers of users."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pairs import make_pair
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    RAGGED,
    TEXT_ONLY,
    TURN_END,
    TWO_IMAGES,
    TWO_TURNS,
    VISION_END,
    VISION_START,
    make_inputs,
    tiny_model,
)
from torch import Tensor

from hf_token_compress import Scorer, available_scorers, compress, register_scorer
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers import registry as scorer_registry
from hf_token_compress.scorers.random import RandomScorer
from hf_token_compress.scorers.uniform import dither_rank

pytestmark = pytest.mark.core


ATTENTION: Any = {"scorer": "attention", "retention_ratio": 0.25, "min_visual_tokens": 0}


def compressed_by(scorer: str, ratio: float = 0.25, **options: Any) -> Any:
    setting = {"scorer": scorer, "scorer_options": options, "retention_ratio": ratio}
    return compress(tiny_model(), {**setting, "min_visual_tokens": 0})


def samples_of(model: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    with torch.no_grad():
        model(**inputs, **options)
    return model.token_compression.last.samples


# Attention


def instruction_positions(ids: Tensor, real: Tensor, visual: Tensor, scope: str) -> list[int]:
    """Positions of the instruction tokens of one prompt, found token by token."""
    special = {TURN_END, VISION_START, VISION_END}
    text = [p for p in range(len(ids)) if real[p] and not visual[p] and int(ids[p]) not in special]
    if scope == "all_text":
        return text
    last_visual = max((p for p in range(len(ids)) if visual[p]), default=-1)
    after = [p for p in text if p > last_visual]
    ends = [p for p in range(last_visual + 1, len(ids)) if int(ids[p]) == TURN_END]
    if scope == "after_visual" or not ends:
        return after
    start = ends[-2] if len(ends) > 1 else -1
    return [p for p in after if start < p < ends[-1]]


@pytest.mark.parametrize("scope", ["last_turn", "after_visual", "all_text"])
@pytest.mark.parametrize("window", [None, 20])
def test_attention_equals_that_of_the_stock_model_in_layer_0(
    scope: Any, window: int | None
) -> None:
    """The mean over heads and instruction tokens of the map that eager attention returns."""
    options: dict[str, Any] = {}
    if window is not None:
        options = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    config = {**ATTENTION, "instruction": scope}
    stock, compressed = make_pair(config, attention="eager", **options)
    prompts = [
        ONE_IMAGE,
        TWO_TURNS,
        IMAGE_AND_VIDEO,
        TWO_IMAGES,
        (3, (4, 4), 5, "end", 4, "end", 1),
    ]
    inputs = make_inputs(prompts)
    with torch.no_grad():
        maps = stock(**inputs, output_attentions=True).attentions[0].mean(1)  # [B, S, S]
    for number, sample in enumerate(samples_of(compressed, inputs)):
        visual = inputs["mm_token_type_ids"][number] > 0
        real = inputs["attention_mask"][number].bool()
        positions = instruction_positions(inputs["input_ids"][number], real, visual, scope)
        assert positions
        expected = maps[number, positions].mean(0)[visual]
        torch.testing.assert_close(sample.scores, expected, rtol=1e-4, atol=1e-7)
        assert sample.scores.std() > 1e-4 or window is not None


def test_attention_with_an_instruction_mask() -> None:
    stock, compressed = make_pair(ATTENTION, attention="eager")
    inputs = make_inputs(RAGGED)
    mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    mask[:, -3:-1] = True
    with torch.no_grad():
        maps = stock(**inputs, output_attentions=True).attentions[0].mean(1)
    samples = samples_of(compressed, inputs, instruction_mask=mask)
    for number, sample in enumerate(samples):
        expected = maps[number, -3:-1].mean(0)[inputs["mm_token_type_ids"][number] > 0]
        torch.testing.assert_close(sample.scores, expected, rtol=1e-4, atol=1e-7)


def test_gated_fusion_with_the_diverse_selection_is_the_default() -> None:
    settings = {"retention_ratio": 0.25, "min_visual_tokens": 0}
    inputs = make_inputs([ONE_IMAGE])
    default = samples_of(compress(tiny_model(), settings), inputs)[0]
    named = {**settings, "scorer": "gated_fusion", "selection": "diverse"}
    expected = samples_of(compress(tiny_model(), named), inputs)[0]
    assert torch.equal(default.scores, expected.scores)
    assert torch.equal(default.kept_visual, expected.kept_visual)


def test_attention_depends_on_the_question() -> None:
    model = compressed_by("attention")
    inputs = make_inputs([ONE_IMAGE])
    first = samples_of(model, inputs)[0].kept_visual
    inputs["input_ids"][0, -10:-3] = torch.arange(7)
    assert not torch.equal(samples_of(model, inputs)[0].kept_visual, first)


# Random


def test_random_depends_on_the_seed_and_the_prompt() -> None:
    inputs = make_inputs([ONE_IMAGE])
    by_seed = [
        samples_of(compressed_by("random", seed=seed), inputs)[0].kept_visual for seed in range(5)
    ]
    assert len({tuple(kept.tolist()) for kept in by_seed}) == 5
    again = samples_of(compressed_by("random"), inputs)[0].kept_visual
    assert torch.equal(again, by_seed[0])
    samples_of(compressed_by("random", seed=2**64 - 1), inputs)  # the largest
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -5] += 1
    assert not torch.equal(samples_of(compressed_by("random"), changed)[0].kept_visual, by_seed[0])


def test_random_keeps_every_position_about_as_often() -> None:
    """Of 48 tokens 12 are kept: with 400 seeds each is kept 100 ± 8.7 times."""
    prompt, _ = read_prompt(tiny_model(), make_inputs([ONE_IMAGE]))
    kept = torch.zeros(48)
    for seed in range(400):
        scores = RandomScorer(seed).score(prompt)
        kept[scores[prompt.visual_mask].topk(12).indices] += 1
    assert kept.sum() == 4800
    assert (kept - 100).abs().max() < 45


def test_masks_on_the_host_are_those_of_the_prompt() -> None:
    """Also of a changed prompt, and of a mask that a scorer wrote to."""
    model = tiny_model()
    prompt, _ = read_prompt(model, make_inputs([ONE_IMAGE]))
    first, second = prompt.query_mask[0].nonzero().flatten().tolist()[:2]
    fewer = prompt.instruction_mask.clone()
    fewer[0, first] = False
    changed = dataclasses.replace(prompt, instruction_mask=fewer)
    assert torch.equal(changed.on_host.query, changed.query_mask)
    assert not torch.equal(changed.query_mask, prompt.query_mask)
    mask = prompt.query_mask
    mask[0, second] = False
    tokens = prompt.query_tokens(mask, mask.device)
    assert torch.equal(tokens.position, mask[0].nonzero().flatten())
    prompt.visual_mask[:] = False
    assert prompt.on_host.visual.any()


def test_random_leaves_the_global_generator_alone() -> None:
    model, inputs = compressed_by("random"), make_inputs([ONE_IMAGE])
    before = torch.get_rng_state()
    samples_of(model, inputs)
    assert torch.equal(torch.get_rng_state(), before)


# Uniform


@pytest.mark.parametrize(("rows", "columns"), [(6, 8), (8, 8), (4, 4), (10, 6)])
def test_a_quarter_of_an_even_grid_is_every_second_row_and_column(rows: int, columns: int) -> None:
    model = compressed_by("uniform")
    sample = samples_of(model, make_inputs([(3, (rows, columns), 4, "end", 2)]))[0]
    kept = sample.kept_visual.view(rows, columns)
    expected = torch.zeros_like(kept)
    expected[::2, ::2] = True
    assert torch.equal(kept, expected)


def test_a_sixteenth_of_a_grid_is_every_fourth_row_and_column() -> None:
    sample = samples_of(
        compressed_by("uniform", ratio=1 / 16), make_inputs([(3, (8, 8), 4, "end", 2)])
    )[0]
    kept = sample.kept_visual.view(8, 8)
    expected = torch.zeros_like(kept)
    expected[::4, ::4] = True
    assert torch.equal(kept, expected)


def test_half_of_an_even_grid_is_a_checkerboard() -> None:
    sample = samples_of(
        compressed_by("uniform", ratio=0.5), make_inputs([(3, (6, 8), 4, "end", 2)])
    )[0]
    row, column = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    assert torch.equal(sample.kept_visual.view(6, 8), (row + column) % 2 == 0)


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), data=st.data())
def test_every_kept_count_is_spread(rows: int, columns: int, data: st.DataObject) -> None:
    """Every n-th row and column is kept, with the smallest n = 1, 2, 4, … that the count allows."""
    count = data.draw(st.integers(1, rows * columns))
    spacing = 1
    while math.ceil(rows / spacing) * math.ceil(columns / spacing) > count:
        spacing *= 2
    places = dither_rank(1, rows, columns).argsort(stable=True)[:count]
    kept = torch.zeros(rows * columns, dtype=torch.bool).index_fill(0, places, True)
    assert kept.view(rows, columns)[::spacing, ::spacing].all()


@given(frames=st.integers(1, 5), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_ranks_are_a_permutation(frames: int, rows: int, columns: int) -> None:
    ranks = dither_rank(frames, rows, columns)
    size = frames * rows * columns
    torch.testing.assert_close(ranks.sort().values, torch.arange(size) / size)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.8])
def test_images_of_a_prompt_keep_the_same_share(ratio: float) -> None:
    prompt = (3, (4, 6), 2, (8, 10), 5, "end", 2)
    sample = samples_of(compressed_by("uniform", ratio=ratio), make_inputs([prompt]))[0]
    kept = sample.kept_visual.split([24, 80])
    for part in kept:
        assert abs(int(part.sum()) - ratio * len(part)) <= 1.5


def test_uniform_does_not_depend_on_image_or_question() -> None:
    model = compressed_by("uniform")
    kept = [
        samples_of(model, make_inputs([ONE_IMAGE], seed=seed))[0].kept_visual for seed in range(3)
    ]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_frames_of_a_video_are_thinned_last() -> None:
    """At a quarter, every frame keeps every second row and column."""
    prompt = (2, (4, 4, 4), 5, "end", 2)
    kept = samples_of(compressed_by("uniform"), make_inputs([prompt]))[0].kept_visual
    assert kept.view(4, 16).sum(1).tolist() == [4, 4, 4, 4]


OFF_GRID = {
    "one per row": (ONE_IMAGE, 4),
    "a single one": ((2, (4, 4, 4), 5, "end", 2), 1),
    "a single one and one per row": (IMAGE_AND_VIDEO, 5),
    "one per image": ((3, *[(4, 4)] * 12, 5, "end", 2), 12),
}
"""Prompts for LLaVA-OneVision, with their number of newline tokens."""


def kept_newlines(prompt: Any, ratio: float) -> Tensor:
    """Which newline tokens LLaVA-OneVision keeps by their scores alone, bool in their order."""
    config = {"scorer": "uniform", "retention_ratio": ratio, "min_visual_tokens": 0}
    model = compress(tiny_model(family="llava_onevision"), {**config, "structure_share": 0.0})
    # With padding, so that positions in the prompt and in the batch differ.
    inputs = make_inputs([TEXT_ONLY, prompt], family="llava_onevision")
    sample = samples_of(model, inputs)[1]
    kept, start = [], 0
    for visual in sample.visuals:
        newline = torch.ones(len(visual.positions), dtype=torch.bool)
        for grid in visual.grids:
            newline[grid.index.flatten()] = False
        kept.append(sample.kept_visual[start : start + len(newline)][newline])
        start += len(newline)
    return torch.cat(kept)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9])
@pytest.mark.parametrize(("prompt", "count"), OFF_GRID.values(), ids=list(OFF_GRID))
def test_tokens_on_no_grid_keep_the_same_share(prompt: Any, count: int, ratio: float) -> None:
    """Within one token."""
    newlines = kept_newlines(prompt, ratio)
    assert len(newlines) == count
    assert abs(int(newlines.sum()) - ratio * count) <= 1


def test_a_single_token_on_no_grid_is_kept_above_a_half() -> None:
    prompt, _ = OFF_GRID["a single one"]
    kept = [bool(kept_newlines(prompt, ratio).all()) for ratio in (0.1, 0.25, 0.4, 0.6, 0.75, 1)]
    assert kept == [False, False, False, True, True, True]


def test_kept_tokens_on_no_grid_are_spread() -> None:
    prompt, _ = OFF_GRID["one per image"]
    assert kept_newlines(prompt, 0.25).nonzero().flatten().tolist() == [0, 4, 8]
    assert kept_newlines(prompt, 0.5).nonzero().flatten().tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("prompt", [ONE_IMAGE, TWO_IMAGES, IMAGE_AND_VIDEO])
def test_scores_of_tokens_on_a_grid_are_their_ranks(prompt: Any) -> None:
    sample = samples_of(compressed_by("uniform"), make_inputs([prompt]))[0]
    ranks = [dither_rank(*grid.shape) for visual in sample.visuals for grid in visual.grids]
    assert torch.equal(sample.scores, -torch.cat(ranks))


# Scorers of users


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget registrations after the test."""
    monkeypatch.setattr(scorer_registry.SCORERS, "registered", {})


@pytest.mark.usefixtures("own_registry")
def test_a_users_scorer_gets_the_prompt_and_decides() -> None:
    seen: list[Any] = []

    @register_scorer("from_the_end")
    class FromTheEnd(Scorer):
        def __init__(self, sign: float = 1.0) -> None:
            self.sign = sign

        def score(self, prompt: Any) -> Tensor:
            seen.append(prompt)
            positions = torch.arange(prompt.input_ids.shape[1], dtype=torch.float32)
            return self.sign * positions.expand(prompt.input_ids.shape)

    assert "from_the_end" in available_scorers()
    inputs = make_inputs(RAGGED)
    for sign, kept in ((1.0, slice(-12, None)), (-1.0, slice(0, 12))):
        sample = samples_of(compressed_by("from_the_end", sign=sign), inputs)[0]
        assert sample.kept_visual[kept].all()
        assert int(sample.kept_visual.sum()) == 12
    prompt = seen[0]
    assert torch.equal(prompt.input_ids, inputs["input_ids"])
    assert torch.equal(prompt.attention_mask, inputs["attention_mask"].bool())
    assert torch.equal(prompt.visual_mask, inputs["mm_token_type_ids"] > 0)
    assert not (prompt.instruction_mask & (prompt.visual_mask | ~prompt.attention_mask)).any()
    assert not prompt.inputs_embeds.requires_grad
    stock = tiny_model()
    features = stock.get_image_features(
        inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
    ).pooler_output
    assert torch.equal(prompt.inputs_embeds[prompt.visual_mask], torch.cat(list(features)))
    words = stock.get_input_embeddings()(inputs["input_ids"])
    text = prompt.attention_mask & ~prompt.visual_mask
    assert torch.equal(prompt.inputs_embeds[text], words[text])


@pytest.mark.usefixtures("own_registry")
def test_scores_may_be_in_half_precision() -> None:
    @register_scorer("half")
    class Half(Scorer):
        def score(self, prompt: Any) -> Tensor:
            return torch.rand(prompt.input_ids.shape).to(torch.bfloat16)

    assert samples_of(compressed_by("half"), make_inputs([ONE_IMAGE]))[0].scores.dtype == (
        torch.float32
    )


@pytest.mark.usefixtures("own_registry")
def test_a_notebook_cell_may_run_twice() -> None:
    def cell() -> type[Scorer]:
        @register_scorer("cell")
        class Cell(Scorer):
            def score(self, prompt: Any) -> Tensor:
                return torch.rand(prompt.input_ids.shape)

        return Cell

    cell()
    second = cell()
    assert type(compressed_by("cell").token_compression.scorer) is second
