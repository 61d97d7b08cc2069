"""Videos from file to answer, and the images of what was kept of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors import one_sentence
from pairs import make_pair
from PIL import Image
from sample_files import write_video
from tiny_models import FAMILIES, IMAGE_AND_VIDEO, ONE_IMAGE, ONE_VIDEO, make_inputs
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, load_tiny
from hf_token_compress.cli import app
from hf_token_compress.data.chat import user_turn
from hf_token_compress.data.scenes import make_clip
from hf_token_compress.viz import (
    frame_overlays,
    frame_sheet,
    kept_per_frame,
    overlay,
    save_animation,
)

MODEL = "tiny-qwen2-vl"


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip() -> list[Image.Image]:
    return make_clip(0, 6).images


@pytest.fixture(scope="module")
def video(clip: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", clip)


def test_run_answers_about_a_video(video: Path) -> None:
    outcome = call(
        *("run", "--json", "--model", MODEL, "--video", video, "--frames", 4),
        *("--prompt", "Where is the cat?", "--max-new-tokens", 4, "--retention-ratio", 0.25),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    # Four frames of 8 x 8 tokens, joined two and two.
    assert (found["visual_tokens_before"], found["visual_tokens_after"]) == (128, 32)
    assert found["videos"] == [str(video)]


def test_run_draws_pictures_and_videos(
    video: Path, clip: list[Image.Image], tmp_path: Path
) -> None:
    picture, target = tmp_path / "picture.png", tmp_path / "out.png"
    clip[0].save(picture)
    outcome = call(
        *("run", "--json", "--model", MODEL, "--video", video, "--image", picture, "--frames", 4),
        *("--prompt", "What changed?", "--max-new-tokens", 2, "--overlay", target),
        *("--min-tokens-per-frame", 7, "--retention-ratio", 0.1),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["token_compression"]["min_tokens_per_frame"] == 7
    drawn, sheet = (Image.open(path) for path in found["overlays"])
    assert drawn.width == drawn.height
    assert sheet.width > 1.5 * sheet.height  # two joined frames side by side


def test_run_draws_an_animation(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept.gif"
    outcome = call(
        *("run", "--model", MODEL, "--video", video, "--frames", 6, "--prompt", "x"),
        *("--max-new-tokens", 1, "--overlay", target),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert Image.open(target).n_frames == 3


def test_evaluate_asks_about_clips() -> None:
    outcome = call(
        *("evaluate", "--clip-frames", 2, "--kind", "colour", "--per-kind", 2, "--json"),
        *("--scorer", "truth", "--retention-ratio", 0.5),
    )
    assert outcome.exit_code == 0, outcome.stderr
    rows = json.loads(outcome.stdout)["rows"]
    assert [row["scorer"] for row in rows] == ["full", "truth"]
    assert [row["kinds"]["colour"]["asked"] for row in rows] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "give --image or --video"), (["--video", "none.mp4"], "no video file")],
)
def test_bad_arguments_are_told_in_one_sentence(arguments: list[str], message: str) -> None:
    outcome = call("run", "--model", MODEL, "--prompt", "x", *arguments)
    assert outcome.exit_code in (1, 2)
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_per_frame_counts_what_was_kept(family: str) -> None:
    config = TokenCompressionConfig(
        retention_ratio=0.3, min_visual_tokens=0, min_tokens_per_visual=0, scorer="random"
    )
    _, compressed = make_pair(config, family=family)
    compressed(**make_inputs([IMAGE_AND_VIDEO], family=family))
    sample = compressed.token_compression.last.samples[0]
    counts = [kept_per_frame(sample, visual) for visual in (0, 1)]
    assert [len(frames) for frames in counts] == [2, 1]
    on_grids = torch.zeros(len(sample.kept_visual), dtype=torch.bool)
    start = 0
    for visual in sample.visuals:
        for grid in visual.grids:
            on_grids[start + grid.index.flatten()] = True
        start += len(visual.positions)
    kept = sum(kept for frames in counts for kept, _ in frames)
    assert kept == int((sample.kept_visual & on_grids).sum())
    assert sum(total for frames in counts for _, total in frames) == int(on_grids.sum())


@pytest.fixture
def sample() -> Any:
    _, compressed = make_pair(family="llava_onevision")
    compressed(**make_inputs([ONE_VIDEO], family="llava_onevision"))
    return compressed.token_compression.last.samples[0]


def test_overlays_of_frames_are_those_of_pictures(sample: Any) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("white", "yellow")]
    drawn = frame_overlays(frames, sample)
    for number, image in enumerate(drawn):
        expected = overlay(frames[number], sample, frame=number, token_size=16)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("given", [2, 3, 4, 5])
def test_joined_frames_are_shown_by_their_first(given: int, sample: Any) -> None:
    frames = [Image.new("RGB", (64, 64), (50 * number, 0, 0)) for number in range(given)]
    second = frame_overlays(frames, sample)[1]
    expected = overlay(frames[-(-given // 2)], sample, frame=1, token_size=16)
    np.testing.assert_array_equal(np.asarray(second), np.asarray(expected))


def test_too_few_frames(sample: Any) -> None:
    with one_sentence(ValueError, "2 frames of visual tokens", "only 1"):
        frame_sheet([Image.new("RGB", (64, 64))], sample)


def test_a_sheet_has_four_frames_in_a_row_and_room_for_counts() -> None:
    model, processor = load_tiny("qwen2-vl", token_compression={"retention_ratio": 0.25})
    frames = make_clip(1, 4).images * 3
    inputs = processor.apply_chat_template(
        [user_turn("Where is the cat?", videos=[frames])],
        **{"tokenize": True, "return_dict": True, "return_tensors": "pt"},
    )
    model(**inputs)
    sample = model.token_compression.last.samples[0]
    assert sum(kept for kept, _ in kept_per_frame(sample)) == 96  # a quarter of 6 x 64
    sheet, titled = frame_sheet(frames, sample), frame_sheet(frames, sample, title="Frames")
    panel = frame_overlays(frames, sample)[0]
    assert 4 * panel.width < sheet.width < 5 * panel.width
    assert 2 * panel.height < sheet.height < titled.height < 3 * panel.height


def test_an_animation_needs_images(tmp_path: Path) -> None:
    with one_sentence(ValueError, "at least one image"):
        save_animation(tmp_path / "x.gif", [])


def test_two_grids_over_one_picture_light_it_in_halves() -> None:
    """Kept on both grids, on one of them, on none."""
    _, compressed = make_pair(family="llava_onevision")
    compressed(**make_inputs([ONE_IMAGE], family="llava_onevision"))
    sample = compressed.token_compression.last.samples[0]
    coarse, fine = sample.visuals[0].grids
    lightness = []
    for on_coarse, on_fine in ((True, True), (True, False), (False, True), (False, False)):
        sample.kept_visual[coarse.index.flatten()] = on_coarse
        sample.kept_visual[fine.index.flatten()] = on_fine
        drawn = overlay(Image.new("RGB", (320, 240), "white"), sample)
        lightness.append(np.median(np.asarray(drawn.convert("L"))))
    both, first, second, none = lightness
    assert both == 255
    assert none < 0.5 * 255
    assert first == second == pytest.approx((both + none) / 2, abs=1)
