"""Relevance on the trained tiny model: the oracle, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_token_compress import load_tiny
from hf_token_compress.cli import app
from hf_token_compress.data.scenes import make_scene, scene_questions
from hf_token_compress.evaluation import measure_retention, scene_samples
from hf_token_compress.relevance import DEFAULT_RULE


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_tiny("qwen2-vl")


def test_the_oracle_keeps_place_and_content_at_a_quarter(tiny: Any) -> None:
    """Like the ground truth, which shares no code with it, up to one of 24 answers."""
    samples = scene_samples(["place", "where"], 12, seed=7000)
    full, oracle, truth, chance = measure_retention(
        *tiny,
        samples,
        scorers=["relevance", "truth", "random"],
        retention_ratios=[0.25],
        max_new_tokens=8,
    )
    assert oracle.kept_share == 0.25
    right = {item.scorer: sum(item.correct.values()) for item in (full, oracle, truth, chance)}
    assert right["relevance"] >= right[None] - 1
    assert right["relevance"] >= right["truth"] - 1
    assert right["relevance"] >= right["random"] + 10


def explain(*arguments: Any) -> Any:
    call = ["explain", "--model", "tiny-qwen2-vl", *map(str, arguments)]
    return CliRunner().invoke(app, call)


def test_the_command_draws_and_writes(tmp_path: Path) -> None:
    scene = make_scene(7, 4, 4)
    scene.image.save(tmp_path / "board.png")
    question = scene_questions(scene, ["where"])[0]
    output = tmp_path / "a" / "b"
    outcome = explain("--image", tmp_path / "board.png", "--prompt", question.text, "-o", output)
    assert outcome.exit_code == 0, outcome.stderr
    assert question.answer in outcome.stdout
    written = json.loads((output / "relevance.json").read_text())
    assert written["answer"] == question.answer
    assert "".join(written["answer_tokens"]).strip() == question.answer
    assert written["rule"] == DEFAULT_RULE
    # The best tokens lie in the cell that the question is about.
    (box,) = question.relevant_boxes
    best = max(range(64), key=written["scores"].__getitem__)
    assert (best // 8 // 2, best % 8 // 2) == (box[1] // 48, box[0] // 48)
    faithful = written["faithfulness"]
    assert faithful["least_first"]["area"] > faithful["most_first"]["area"]
    for name in ("relevance", "tokens", "faithfulness"):
        with Image.open(output / f"{name}.png") as image:
            assert min(image.size) > 100


def test_the_command_takes_videos_and_answers(tmp_path: Path) -> None:
    frames = [make_scene(seed, 4, 4).image for seed in range(4)]
    frames[0].save(tmp_path / "video.gif", save_all=True, append_images=frames[1:])
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):
        frame.save(folder / f"{number}.png")
    for number, video in enumerate((tmp_path / "video.gif", folder)):
        output = tmp_path / str(number)
        options = ("--answer", "row 2, column 1", "--rule", "gae", "--prompt", "Where is the cat?")
        outcome = explain("--video", video, "-o", output, *options)
        assert outcome.exit_code == 0, outcome.stderr
        written = json.loads((output / "relevance.json").read_text())
        assert (written["answer"], written["rule"]) == ("row 2, column 1", "gae")
        # Two frames are one step of the grid: two panels side by side.
        with Image.open(output / "relevance.png") as image:
            assert image.width > 1.5 * image.height
        assert len(written["scores"]) == 2 * 64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--image", "--video")),
        (("--image", "missing.png"), ("missing.png",)),
        (("--image", "{image}", "--rule", "gea"), ("gea", "gae")),
        (("--image", "{image}", "--rule-option", "target"), ("--rule-option", "KEY=VALUE")),
        (("--image", "{image}", "--answer", ""), ("no tokens",)),
        (("--video", "{empty}"), ("no images",)),
    ],
)
def test_the_command_tells_what_is_wrong(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    make_scene(7, 4, 4).image.save(tmp_path / "board.png")
    (tmp_path / "empty").mkdir()
    places = {"{image}": str(tmp_path / "board.png"), "{empty}": str(tmp_path / "empty")}
    given = [places.get(item, item) for item in arguments]
    outcome = explain("--prompt", "Where is the cat?", "-o", tmp_path / "out", *given)
    assert outcome.exit_code != 0
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    for word in words:
        assert word in outcome.stderr


def test_without_matplotlib_all_but_the_plot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    make_scene(7, 4, 4).image.save(tmp_path / "board.png")
    arguments = ("--image", tmp_path / "board.png", "--prompt", "Where is the cat?")
    outcome = explain(*arguments, "-o", tmp_path / "out")
    assert outcome.exit_code == 0
    assert "hf-token-compress[plots]" in outcome.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"relevance.png", "tokens.png", "relevance.json"}
