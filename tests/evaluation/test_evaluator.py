"""Answers with many settings: what is measured of each, and how a stopped run continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from PIL import Image
from typer.testing import CliRunner

from hf_token_compress import compress, load_tiny, uncompress
from hf_token_compress.cli import app
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.composed import scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import JsonLines
from hf_token_compress.evaluation import (
    FULL,
    Evaluation,
    Evaluator,
    measure_retention,
    settings_of,
)

SAMPLES = scene_samples(["colour", "place"], 2, seed=40)
SETTINGS = settings_of(["attention", "random"], [1.0, 0.25], [5])


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl", dtype=torch.float32)


@pytest.fixture(scope="module")
def found(tiny: tuple[Any, Any]) -> Evaluation:
    options: Any = {"divergence": True, "log_probability": True, "batch_size": 3}
    return Evaluator(*tiny, SAMPLES, **options).run(SETTINGS)


def log_probabilities(model: Any, inputs: Any, tokens: int) -> torch.Tensor:
    """Of the model's own next tokens, [T, V] for one prompt, and its answer."""
    options: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
    return torch.stack(output.logits, 1)[0].log_softmax(-1)


def test_scorers_meet_ratios_and_numbers_of_tokens(found: Evaluation) -> None:
    full, *others = found.results
    assert full.setting == FULL
    assert [(own.scorer, own.setting.budget) for own in others] == [
        (scorer, budget)
        for scorer in ("attention", "random")
        for budget in ((1.0, None, None), (0.25, None, None), (1.0, 5, None))
    ]
    assert [own.visual_tokens for own in others] == [64, 16, 5] * 2
    assert found.left_out == ()


def test_keeping_all_tokens_changes_nothing(found: Evaluation) -> None:
    """Not the answers, nor any distribution."""
    full, everything, *_ = found.results
    assert everything.samples == full.samples
    assert {sample.kl for sample in everything.samples} == {0.0}


def test_every_figure_of_a_sample_is_that_of_the_sample_alone(
    found: Evaluation, tiny: tuple[Any, Any]
) -> None:
    """The scorer random among them: what it keeps depends on the prompt, not on its batch."""
    number = 1  # the second of a batch of three
    options: Any = {"divergence": True, "log_probability": True}
    alone = Evaluator(*tiny, SAMPLES[number : number + 1], **options).run(SETTINGS)
    for expected, own in zip(alone.results, found.results, strict=True):
        in_batch, by_itself = own.samples[number], expected.samples[0]
        for name in ("kl", "log_probability"):
            assert getattr(in_batch, name) == pytest.approx(getattr(by_itself, name), abs=1e-4)
        same: dict[str, Any] = {"number": 0, "kl": None, "log_probability": None}
        assert replace(in_batch, **same) == replace(by_itself, **same)


def test_the_divergence_follows_the_answer_of_the_whole_model(
    found: Evaluation, tiny: tuple[Any, Any]
) -> None:
    """Its first token is computed here, and the others where the answers agree so far."""
    model, processor = tiny
    for setting, own in zip([FULL, *SETTINGS], found.results, strict=True):
        if setting.scorer != "attention":
            continue
        for number in (0, 1):
            inputs = encode_samples(processor, [SAMPLES[number]])
            count = len(found.results[0].samples[number].first_tokens)
            full = log_probabilities(model, inputs, count)
            try:
                other = log_probabilities(compress(model, setting.config), inputs, count)
            finally:
                uncompress(model)
            if not own.samples[number].agrees:
                continue
            terms = (full.exp() * (full - other)).sum(-1)  # [T]
            assert own.samples[number].kl == pytest.approx(float(terms.mean()), abs=1e-5)


def test_the_log_probability_is_that_of_the_right_answer(
    found: Evaluation, tiny: tuple[Any, Any]
) -> None:
    """Which the model gives here itself, so that `generate` says how likely its tokens are."""
    model, processor = tiny
    (sample,) = found.results[0].samples[:1]
    assert sample.score == 1.0
    ids = processor.tokenizer(SAMPLES[0].answer, add_special_tokens=False)["input_ids"]
    likely = log_probabilities(model, encode_samples(processor, SAMPLES[:1]), len(ids))
    expected = sum(float(own[token]) for own, token in zip(likely, ids, strict=True))
    assert sample.log_probability == pytest.approx(expected, abs=1e-5)


def test_the_log_probability_of_a_choice_is_that_of_its_letter(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    sample = replace(SAMPLES[0], choices=("something else", SAMPLES[0].answer))
    (found,) = Evaluator(*tiny, [sample], log_probability=True, max_new_tokens=1).run([]).results
    (letter,) = processor.tokenizer("B", add_special_tokens=False)["input_ids"]
    (likely,) = log_probabilities(model, encode_samples(processor, [sample]), 1)
    assert found.samples[0].log_probability == pytest.approx(float(likely[letter]), abs=1e-5)


def test_without_right_answers_those_of_the_whole_model_count(
    found: Evaluation, tiny: tuple[Any, Any]
) -> None:
    silent = [replace(sample, answer=None) for sample in SAMPLES]
    unlabelled = Evaluator(*tiny, silent, batch_size=3).run(SETTINGS)
    assert not unlabelled.labelled
    for known, own in zip(found.results, unlabelled.results, strict=True):
        assert own.scores().tolist() == [float(sample.agrees) for sample in known.samples]
        assert [sample.kl for sample in own.samples] == [sample.kl for sample in known.samples]
    assert unlabelled.results[0].accuracy() == 1.0 > unlabelled.results[-1].accuracy()


def test_down_sampled_images_have_the_tokens_of_the_budget(tiny: tuple[Any, Any]) -> None:
    """An image of twice the side has 256 tokens; the processor makes none of less than 64."""
    large = SAMPLES[0].image.resize((384, 384))
    sample = Sample("image", (large,), SAMPLES[0].question, SAMPLES[0].answer)
    settings = settings_of([], [0.5, 0.1], [64], downsample=True)
    full, half, tenth, most = Evaluator(*tiny, [sample]).run(settings).results
    assert full.visual_tokens == 256
    # 12 x 12 tokens is what the processor makes of sides of 271 pixels, 24 a token.
    assert [half.visual_tokens, tenth.visual_tokens, most.visual_tokens] == [121, 64, 64]
    assert half.kept_share == 121 / 256
    small = Sample("image", (large.resize((192, 192)),), sample.question, sample.answer)
    (alone,) = Evaluator(*tiny, [small]).run([]).results
    assert alone.samples[0].answer == most.samples[0].answer


def test_a_sample_that_the_model_refuses_costs_only_itself(tiny: tuple[Any, Any]) -> None:
    thin = Sample("image", (Image.new("RGB", (900, 2)),), "Where?", "here")
    mixed = [*SAMPLES[:2], thin, SAMPLES[2]]
    with pytest.warns(UserWarning, match="1 of 4 samples are left out: sample 2"):
        with_thin = measure_retention(*tiny, mixed, scorers=["random"], retention_ratios=[0.5])
    assert [sample.number for sample in with_thin[1].samples] == [0, 1, 3]
    without = measure_retention(*tiny, SAMPLES[:3], scorers=["random"], retention_ratios=[0.5])
    assert [own.correct for own in with_thin] == [own.correct for own in without]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["random", "random"], [0.5]), ("random", "twice", "50 %")),
        ((["random"], [], [7, 7]), ("twice", "7 tokens")),
        ((["random"], [1.5]), ("retention_ratio",)),
        ((["mapper"], [0.5]), ("mapper",)),
    ],
)
def test_settings_that_make_no_sense(arguments: tuple[Any, ...], words: tuple[str, ...]) -> None:
    with one_sentence(ValueError, *words):
        settings_of(*arguments)


def test_answers_in_a_file_are_not_asked_again(
    found: Evaluation, tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    """Whatever was there: more settings are asked, and half a line is asked again."""
    path = tmp_path / "answers.jsonl"
    options: Any = {"divergence": True, "log_probability": True, "batch_size": 3, "answers": path}
    Evaluator(*tiny, SAMPLES, **options).run(SETTINGS[:2])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    asked: list[int] = []
    known: list[int] = []
    again = Evaluator(*tiny, SAMPLES, **options).run(
        SETTINGS, after_batch=asked.append, known_answers=known.append
    )
    assert again == found
    assert (sum(known), sum(asked)) == (6, 7 * 4 - 6)
    assert path.read_bytes().startswith(b"".join(lines[:3]))
    before = path.read_bytes()
    assert Evaluator(*tiny, SAMPLES, **options).run(SETTINGS) == found
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"metric": "contains"}, "metric"),
        ({"max_new_tokens": 8}, "max_new_tokens"),
        ({"divergence": True}, "divergence"),
        ({"samples": SAMPLES[1:]}, "data"),
    ],
)
def test_answers_of_another_run_are_refused(
    changes: dict[str, Any], word: str, tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    Evaluator(*tiny, SAMPLES, answers=path)
    samples = changes.pop("samples", SAMPLES)
    with one_sentence(ValueError, f"another {word} ", str(path)):
        Evaluator(*tiny, samples, answers=path, **changes)


def test_answers_of_another_model_and_other_files_are_refused(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    Evaluator(*tiny, SAMPLES, answers=path)
    other, processor = load_tiny("qwen2-vl-video")
    with one_sentence(ValueError, "another model "):
        Evaluator(other, processor, SAMPLES, answers=path)
    header = path.read_bytes()
    for content in (b'{"image": "0.png"}\nno\n', b"[]\n", b"notes", header + b"notes\n"):
        path.write_bytes(content)
        with one_sentence(ValueError, str(path)):
            Evaluator(*tiny, SAMPLES, answers=path)
        assert path.read_bytes() == content
    path.write_bytes(header[:30])
    Evaluator(*tiny, SAMPLES, answers=path)
    assert path.read_bytes() == header


def test_a_longer_file_of_questions_asks_only_what_is_new(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    for number, sample in enumerate(SAMPLES):
        sample.image.save(tmp_path / f"{number}.png")
    fields = [
        {"image": f"{number}.png", "question": own.question, "answer": own.answer}
        for number, own in enumerate(SAMPLES)
    ]
    path.write_text("\n".join(map(json.dumps, fields)))
    options: Any = {"answers": tmp_path / "answers.jsonl", "batch_size": 2}
    settings = settings_of(["random"], [0.5])
    asked: list[int] = []
    for limit in (2, 3):
        evaluator = Evaluator(*tiny, JsonLines(path, limit=limit), **options)
        found = evaluator.run(settings, after_batch=asked.append, known_answers=lambda count: None)
    assert [count for count in asked if count] == [2, 2, 1, 1]
    assert found == Evaluator(*tiny, JsonLines(path, limit=3), batch_size=2).run(settings)


def test_a_killed_run_continues_and_gives_the_same_table(tmp_path: Path) -> None:
    words = [
        *("evaluate", "--per-kind", "3", "--kind", "place", "--batch-size", "1", "--json"),
        *("--scorer", "attention,random", "--retention-ratio", "0.5", "--dtype", "float32"),
    ]
    killed = [*words, "--output", str(tmp_path / "killed.json")]
    answers = tmp_path / "killed.answers.jsonl"
    command = [sys.executable, "-m", "hf_token_compress.cli", *killed]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (
        not answers.exists() or answers.read_bytes().count(b"\n") < 5
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = answers.read_bytes()
    assert not (tmp_path / "killed.json").exists()
    again = CliRunner().invoke(app, killed)
    assert again.exit_code == 0, again.stderr
    assert answers.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    whole = CliRunner().invoke(app, words)
    assert json.loads(again.stdout) == json.loads(whole.stdout)
    assert json.loads((tmp_path / "killed.json").read_text()) == json.loads(whole.stdout)


def test_settings_share_one_run_of_the_vision_tower(tiny: tuple[Any, Any]) -> None:
    """Besides that of the uncompressed model, and those of scorers that read its attention."""
    model, processor = tiny
    runs = []
    hook = model.get_encoder(modality="image").register_forward_hook(lambda *_: runs.append(1))
    try:
        evaluator = Evaluator(model, processor, SAMPLES, batch_size=len(SAMPLES))
        evaluator.run(SETTINGS)
        assert len(runs) == 2
        evaluator.run(settings_of(["visionzip"], [0.5]))
    finally:
        hook.remove()
    assert len(runs) == 3
