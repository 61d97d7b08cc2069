"""Real short videos, from file to answer, to what was kept and to what the answer depends on."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import full_only
from pairs import ModelPair, assert_same, masked_inputs
from PIL import Image
from places import DATA
from typer.testing import CliRunner

from hf_token_compress import compress, load_tiny
from hf_token_compress.asking import prepare_question
from hf_token_compress.cli import app
from hf_token_compress.cli.checkpoint import Checkpoint
from hf_token_compress.data.media import read_video
from hf_token_compress.viz import frame_overlays, kept_per_frame

FRAMES = 8
PANELS_A_LINE = 6
VIDEOS = {name: DATA / f"{name}.mp4" for name in ("realshort", "cockatoo")}
# Rows and columns of tokens of a frame: pixels over 24 for Qwen2-VL, whose tokens keep the shape
# of the image; one for every 48 pixels of a square for LLaVA-OneVision.
GRIDS = {
    ("qwen2-vl-video", "realshort"): (4, 10, 13),
    ("qwen2-vl-video", "cockatoo"): (4, 8, 13),
    ("llava-onevision", "realshort"): (8, 4, 4),
    ("llava-onevision", "cockatoo"): (8, 4, 4),
}
SIZES = {"realshort": (320, 240), "cockatoo": (320, 180)}
NEWLINES = {"qwen2-vl-video": 0, "llava-onevision": 1}
each_case = pytest.mark.parametrize(
    ("name", "video"),
    [
        ("qwen2-vl-video", "realshort"),
        ("llava-onevision", "cockatoo"),
        full_only("qwen2-vl-video", "cockatoo"),
        full_only("llava-onevision", "realshort"),
    ],
)


def call(command: str, name: str, video: str, *arguments: Any) -> Any:
    options = ("--model", f"tiny-{name}", "--video", VIDEOS[video], "--frames", FRAMES)
    given = [command, *options, "--prompt", "What is at row 2, column 3 at the end?", *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in given])


@each_case
def test_run_answers_and_draws_what_was_kept(name: str, video: str, tmp_path: Path) -> None:
    steps, rows, columns = GRIDS[name, video]
    before = steps * rows * columns + NEWLINES[name]
    sheet, animation = tmp_path / "kept.png", tmp_path / "kept.gif"
    for target in (sheet, animation):
        options = ("--retention-ratio", 0.25, "--max-new-tokens", 4, "--overlay", target)
        outcome = call("run", name, video, "--json", *options)
        assert outcome.exit_code == 0, outcome.stderr
        found = json.loads(outcome.stdout)
        kept = (found["visual_tokens_before"], found["visual_tokens_after"])
        assert kept == (before, round(before / 4))
    with Image.open(animation) as moving, Image.open(sheet) as drawn:
        assert moving.n_frames == steps
        # Four panels in a row, each with two lines of text below it.
        assert 4 * moving.width < drawn.width < 5 * moving.width
        assert steps / 4 * moving.height < drawn.height < 2 * steps / 4 * moving.height


@each_case
def test_explain_goes_over_the_frames(name: str, video: str, tmp_path: Path) -> None:
    steps, rows, columns = GRIDS[name, video]
    outcome = call("explain", name, video, "--output", tmp_path, "--max-new-tokens", 4)
    assert outcome.exit_code == 0, outcome.stderr
    written = json.loads((tmp_path / "relevance.json").read_text())
    assert len(written["scores"]) == steps * rows * columns + NEWLINES[name]
    assert np.isfinite(written["scores"]).all()
    assert max(written["scores"]) > 0
    faithful = written["faithfulness"]
    assert faithful["least_first"]["area"] > faithful["most_first"]["area"]
    with Image.open(tmp_path / "relevance.png") as panels:
        width, height = SIZES[video]
        columns, lines = min(steps, PANELS_A_LINE), math.ceil(steps / PANELS_A_LINE)
        shape = columns * width / (lines * height)
        assert 0.6 * shape < panels.width / panels.height < shape  # captions add to the height


@each_case
def test_the_frames_and_only_they_are_kept_in_part(name: str, video: str) -> None:
    """The answer is that of the stock model with the dropped tokens hidden."""
    stock, processor = load_tiny(name)
    pair = ModelPair(stock, compress(copy.deepcopy(stock), {"retention_ratio": 0.25}))
    frames = read_video(VIDEOS[video], processor, FRAMES)
    checkpoint = Checkpoint(name, model=pair.compressed, processor=processor)
    inputs = prepare_question(checkpoint, [], "Where is the cat?", [frames])
    options = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    actual = pair.compressed.generate(**inputs, **options)
    expected = pair.stock.generate(**masked_inputs(pair, inputs), **options)
    assert torch.equal(actual.sequences, expected.sequences)
    assert_same(torch.stack(actual.logits), torch.stack(expected.logits))

    steps, rows, columns = GRIDS[name, video]
    sample = pair.compressed.token_compression.last.samples[0]
    (grid,) = sample.visuals[0].grids
    assert grid.shape == (steps, rows, columns)
    counts = kept_per_frame(sample)
    on_grid = int(sample.kept_visual[grid.index.flatten()].sum())
    assert sum(kept for kept, _ in counts) == on_grid
    assert [total for _, total in counts] == [rows * columns] * steps
    drawn = frame_overlays(frames, sample)
    assert len(drawn) == steps
    shape = frames[0].width / frames[0].height
    assert all(abs(image.width / image.height - shape) < 0.02 for image in drawn)
