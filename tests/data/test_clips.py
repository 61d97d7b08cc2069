"""Composed clips: what they show, what is asked about them, and where the answers lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pairs import make_pair
from tiny_models import FAMILIES, ONE_VIDEO, make_inputs

from hf_token_compress import load_tiny
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.scenes import CLIP_KINDS, ask_clip, clip_questions, make_clip
from hf_token_compress.evaluation import TruthScorer, clip_samples, measure_retention


def test_a_clip_is_the_same_every_time_and_differs_by_seed_and_split() -> None:
    def pixels(*arguments: object) -> list[bytes]:
        return [image.tobytes() for image in make_clip(*arguments).images]

    assert pixels(3) == pixels(3)
    assert len({tuple(pixels(*a)) for a in ((3,), (4,), (3, 3), (3, 4, 4, 4, "train"))}) == 4


@pytest.mark.parametrize("frames", [1, 4, 6])
def test_no_thing_and_no_tile_colour_comes_twice(frames: int) -> None:
    for seed in range(5):
        clip = make_clip(seed, frames)
        names = [cell.name for frame in clip.frames for cell in frame.cells]
        assert len(set(names)) == len(names) == 16 * frames
        colours = [{cell.colour for cell in frame.cells} for frame in clip.frames]
        assert all(len(shown) == 1 for shown in colours)
        assert len(set.union(*colours)) == frames


@pytest.mark.parametrize("kind", CLIP_KINDS)
@pytest.mark.parametrize("hold", [2, 4])
def test_a_clip_that_holds_its_boards_is_the_same_clip_for_longer(kind: str, hold: int) -> None:
    for seed in range(5):
        short, long = make_clip(seed, 3), make_clip(seed, 3, frames_per_scene=hold)
        shown = [image.tobytes() for image in long.images]
        assert shown == [image.tobytes() for image in short.images for _ in range(hold)]
        (asked,) = clip_questions(short, [kind], seed=seed)
        (again,) = clip_questions(long, [kind], seed=seed)
        assert (again.text, again.answer) == (asked.text, asked.answer)
        assert set(again.relevant_boxes) == set(asked.relevant_boxes)
        (frame,) = asked.relevant_frames
        thing = short.frames[frame].image.crop(asked.relevant_boxes[0]).tobytes()
        shows = zip(again.relevant_frames, again.relevant_boxes, strict=True)
        assert [long.images[number].crop(box).tobytes() for number, box in shows] == [thing] * hold
        assert len(set(again.relevant_frames)) == hold


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 9), "frames"),
        ((0, 8), "128 cells"),
        ((0, 2, 9), "rows"),
        ((0, 2, 4, 4, "test", None, 0), "frames_per_scene"),
    ],
)
def test_clips_that_cannot_be(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_clip(*arguments)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_answers_are_in_the_frame_that_the_question_is_about(kind: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        clip = make_clip(seed, 3)
        question = ask_clip(clip, kind, rng)
        (number,), (box,) = question.relevant_frames, question.relevant_boxes
        cell = next(cell for cell in clip.frames[number].cells if cell.box == box)
        if kind in ("during", "first", "last"):
            assert question.answer == cell.name
            assert f"row {cell.row}, column {cell.column}" in question.text
        else:
            assert question.answer == getattr(cell, kind)
            assert cell.name in question.text
        if kind == "during":
            assert f"while the tiles are {cell.colour}" in question.text
        assert {"first": 0, "last": 2}.get(kind, number) == number


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="taste"):
        clip_questions(make_clip(0), ["taste"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_truth_is_the_relevant_cell_of_the_relevant_frame(family: str) -> None:
    """On random models of two frames of tokens, for clips of two, four and six frames."""
    _, compressed = make_pair(family=family)
    compressed(**make_inputs([ONE_VIDEO], family=family))
    visuals = compressed.token_compression.last.samples[0].visuals
    (grid,) = visuals[0].grids
    _, rows, columns = grid.shape
    for frames, held in ((2, 1), (4, 1), (2, 3)):
        scorer = TruthScorer()
        compressed.token_compression.scorer = scorer
        for sample in clip_samples(["first", "last"], 4, frames=frames, frames_per_scene=held):
            scorer.samples = [sample]
            compressed(**make_inputs([ONE_VIDEO], family=family))
            scores = compressed.token_compression.last.samples[0].scores
            frame, row, column = (scores[grid.index] >= 1).nonzero().unbind(1)
            assert set(frame.tolist()) <= {{"first": 0, "last": 1}[sample.kind]}
            left, top, right, bottom = sample.relevant_boxes[0]
            x, y = (column + 0.5) * 192 / columns, (row + 0.5) * 192 / rows
            assert ((x >= left) & (x < right) & (y >= top) & (y < bottom)).all()
            if rows >= 4 and columns >= 4:
                assert len(frame) > 0


def test_clips_go_through_an_evaluation() -> None:
    model, processor = load_tiny("qwen2-vl")
    samples = clip_samples(["colour", "during"], 2, frames=4)
    inputs = encode_samples(processor, samples[:1])
    assert inputs["video_grid_thw"].tolist() == [[2, 16, 16]]
    results = measure_retention(
        model, processor, samples, scorers=["truth"], retention_ratios=[0.25], batch_size=4
    )
    assert [result.asked for result in results] == [{"colour": 2, "during": 2}] * 2
    assert results[1].kept_share == pytest.approx(0.25)
    assert torch.tensor([result.accuracy() for result in results]).isfinite().all()
