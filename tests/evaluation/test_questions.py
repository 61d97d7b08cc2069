"""Evaluating with the user's own questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from errors import one_sentence
from PIL import Image
from places import DATA
from typer.testing import CliRunner

from hf_token_compress import load_tiny
from hf_token_compress.cli import app
from hf_token_compress.data.composed import clip_samples, scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import JsonLines, SampleList
from hf_token_compress.evaluation import (
    Evaluator,
    Questions,
    measure_retention,
    retention_markdown,
    settings_of,
)

IMAGES = scene_samples(["colour", "presence"], 2)
CLIPS = clip_samples(["first"], 2, frames=2)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl")


def write_questions(folder: Path, samples: Sequence[Sample], *more: Any) -> Path:
    """A file of all that is known of the samples, and of more lines."""
    lines = [*more]
    for number, sample in enumerate(samples):
        names = []
        for place, image in enumerate(sample.frames or sample.visuals):
            names.append(f"{number}-{place}.png")
            image.save(folder / names[-1])
        fields = {
            "question": sample.question,
            "answer": sample.answer,
            "kind": sample.kind,
            "relevant_boxes": sample.relevant_boxes,
            "relevant_frames": sample.relevant_frames,
        }
        shown = {"video": names} if sample.frames else {"image": names[0]}
        lines.append({**shown, **fields})
    path = folder / "questions.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def evaluate(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def assert_refused(outcome: Any, *words: str) -> None:
    assert outcome.exit_code in (1, 2)
    assert outcome.stdout == ""
    assert all(word in outcome.stderr.splitlines()[-1] for word in words), outcome.stderr


@pytest.mark.parametrize("samples", [IMAGES, CLIPS], ids=["images", "clips"])
def test_a_file_gives_the_figures_of_its_samples(
    samples: list[Sample], tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    questions = Questions(JsonLines(write_questions(tmp_path, samples)))
    assert len(questions) == len(samples)
    assert questions.left_out == ()
    assert questions.without_ground_truth is None
    settings = settings_of(["truth", "random"], [0.25])
    expected = Evaluator(*tiny, samples).run(settings)
    assert Evaluator(*tiny, questions).run(settings) == expected
    assert measure_retention(
        *tiny, samples, scorers=["truth", "random"], retention_ratios=[0.25]
    ) == list(expected.results)


def test_what_cannot_be_asked_is_named(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """Before any question is asked as far as possible, and without harm to the others."""
    Image.new("RGB", (900, 2)).save(tmp_path / "thin.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    asked = {"question": "Where?", "answer": "here"}
    path = write_questions(
        tmp_path,
        IMAGES[:1],
        {"image": "none.png", **asked},
        {"image": "0-0.png", "question": "Where?"},
        {"image": "thin.png", **asked},
        {"video": "none.mp4", **asked},
        {"image": "0-0.png", "question": "Where?", "answer": " . "},
        {"image": "broken.png", **asked},
    )
    questions = Questions(JsonLines(path))
    assert [item.number for item in questions.left_out] == [0, 1, 3, 4]
    found = Evaluator(*tiny, questions).run(settings_of(["random"], [0.5]))
    assert [sample.number for sample in found.results[1].samples] == [6]
    assert [item.number for item in found.left_out] == [0, 1, 2, 3, 4, 5]
    reasons = [item.reason for item in found.left_out]
    words = ("none.png", "no answer", "aspect ratio", "none.mp4", "answer is empty", "broken.png")
    for reason, word in zip(reasons, words, strict=True):
        assert word in reason


def test_images_several_images_and_videos_are_asked_together(tiny: tuple[Any, Any]) -> None:
    """In batches of their own; answers stay with their questions."""
    first, second = IMAGES[0], IMAGES[1]
    several = Sample("image", (first.image, second.image), first.question, "x")
    file = Sample("video", (str(DATA / "realshort.mp4"),), "What happens?", "x")
    mixed = [first, several, CLIPS[0], file, second]
    questions = Questions(SampleList(mixed), num_frames=4)
    assert questions.without_ground_truth == 1
    full, compressed = Evaluator(*tiny, questions).run(settings_of(["uniform"], [0.5])).results
    for number, sample in enumerate(mixed):
        alone = Questions([sample], num_frames=4)
        (expected,) = Evaluator(*tiny, alone).run([]).results
        assert replace(expected.samples[0], number=number) == full.samples[number]
    assert full.asked == {first.kind: 1, "all": 2, CLIPS[0].kind: 1, second.kind: 1}
    assert compressed.kept_share == pytest.approx(0.5, abs=0.01)


def test_kinds_choose_questions() -> None:
    questions = Questions(SampleList(IMAGES), kinds=["colour"])
    assert {IMAGES[number].kind for number in questions.numbers} == {"colour"}
    with one_sentence(ValueError, "kind 'smell'", "colour"):
        Questions(SampleList(IMAGES), kinds=["smell"])


def test_not_one_question_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"image": "none.png", "question": "Where?"}))
    with one_sentence(ValueError, "Not one of 1 samples", "none.png"):
        Questions(JsonLines(path))


def test_ground_truth_is_needed_by_the_scorer_truth(tiny: tuple[Any, Any]) -> None:
    unknown = Sample("image", IMAGES[0].visuals, "Where?", "here")
    with one_sentence(ValueError, "relevant_boxes", "sample 1"):
        measure_retention(*tiny, [IMAGES[0], unknown], scorers=["truth"], retention_ratios=[0.5])


def test_answers_are_compared_without_case_and_full_stop(tiny: tuple[Any, Any]) -> None:
    (sample,) = scene_samples(["colour"], 1)
    assert sample.answer is not None
    shouted = Sample("image", sample.visuals, sample.question, f" {sample.answer.upper()}. ")
    found = measure_retention(*tiny, [sample, shouted], scorers=[], retention_ratios=[0.5])
    assert found[0].correct["all"] == found[0].correct["colour"] == 1
    kinds = [Sample("image", sample.visuals, sample.question, sample.answer)]
    (plain,) = measure_retention(*tiny, kinds, scorers=[], retention_ratios=[0.5])
    assert retention_markdown([plain]).splitlines()[0] == "| scorer | kept | all |"


def test_the_command_asks_a_file(tmp_path: Path) -> None:
    path = write_questions(tmp_path, IMAGES, {"image": "0-0.png", "question": "Where?"})
    outcome = evaluate("--data", path, "--retention-ratio", 0.5, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert "Left out (1): line 1 of 'questions.jsonl', it has no answer" in outcome.stderr
    table = json.loads(outcome.stdout)
    assert [row["scorer"] for row in table["rows"]] == (
        ["full", "truth", "gated_fusion", "attention", "uniform", "random"]
    )
    assert table["data"] == str(path)
    assert [item["number"] for item in table["left_out"]] == [0]
    assert {kind: item["asked"] for kind, item in table["rows"][0]["kinds"].items()} == {
        **{"colour": 2, "presence": 2}
    }


@pytest.mark.parametrize(("options", "exit_code"), [([], 3), (["--skip-bad"], 0)])
def test_questions_that_fail_while_they_are_asked_show_in_the_exit_code(
    options: list[str], exit_code: int, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    marked = {"image": "0-0.png", "question": "Where is <|image_pad|>?", "answer": "here"}
    broken = {"image": "broken.png", "question": "Where?", "answer": "here"}
    path = write_questions(tmp_path, IMAGES[:1], marked, broken)
    fast = ["--scorer", "uniform", "--retention-ratio", 0.5, "--max-new-tokens", 1]
    outcome = evaluate("--data", path, *fast, *options, "--json")
    assert outcome.exit_code == exit_code
    table = json.loads(outcome.stdout)
    assert [row["asked"] for row in table["rows"]] == [1, 1]
    marked_out, broken_out = table["left_out"]
    assert marked_out["place"] == "line 1 of 'questions.jsonl'"
    assert "'<|image_pad|>'" in marked_out["reason"]
    assert "broken.png" in broken_out["reason"]
    last = outcome.stderr.splitlines()[-1]
    assert all(item["place"] in last for item in table["left_out"])


def test_without_boxes_the_command_leaves_out_the_scorer_truth(tmp_path: Path) -> None:
    IMAGES[0].image.save(tmp_path / "0.png")
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"image": "0.png", "question": "Where?", "answer": "here"}))
    outcome = evaluate("--data", path, "--retention-ratio", 0.5, "--markdown")
    assert outcome.exit_code == 0, outcome.stderr
    accuracies, costs = outcome.stdout.split("\n\n")
    for table, heading in ((accuracies, "| scorer | kept | all |"), (costs, "| scorer | tokens |")):
        first, _, *lines = table.splitlines()
        assert first.startswith(heading)
        assert [line.split(" | ")[0] for line in lines] == (
            ["| (all visual tokens)", "| gated_fusion", "| attention", "| uniform", "| random"]
        )
    assert_refused(evaluate("--data", path, "--scorer", "truth"), "truth", "relevant_boxes")
    assert_refused(evaluate("--data", path, "--kind", "smell"), "'smell'", "all")
    assert_refused(evaluate("--data", path, "--output", path), "--data and --output", "same file")


def test_the_log_probability_needs_right_answers(tmp_path: Path) -> None:
    path = write_questions(tmp_path, IMAGES[:1])
    path.write_text(json.dumps([{"image": "0-0.png", "question": "Where?"}]))
    assert_refused(evaluate("--data", path, "--log-probability"), "needs right answers")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "x", "--rows", 3], ("--rows",)),
        (["--data", "x", "--per-kind", 3], ("--per-kind",)),
        (["--data", "x", "--seed", 0], ("--seed",)),
        (["--data", "none.jsonl"], ("no data file",)),
        (["--metric", "nearly"], ("metric",)),
        (["--scorer", "random,random"], ("random", "twice")),
        (["--max-visual-tokens", "64,many"], ("--max-visual-tokens", "whole numbers", "'many'")),
        (["--max-visual-tokens", 0], ("max_visual_tokens", "0")),
    ],
)
def test_options_that_exclude_each_other(arguments: list[Any], words: tuple[str, ...]) -> None:
    assert_refused(evaluate(*arguments), *words)
