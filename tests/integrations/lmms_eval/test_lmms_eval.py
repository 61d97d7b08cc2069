"""The real lmms-eval finds the answers and figures that our own evaluation finds."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from errors import one_sentence
from lmms_runs import TASKS, run, write_questions
from PIL import Image

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.data.media import with_frames
from hf_token_compress.data.metrics import is_right
from hf_token_compress.evaluation import Sample, answer_samples, clip_samples, scene_samples

pytest.importorskip(
    "lmms_eval.api.model",
    reason="lmms-eval is not installed: it has an environment of its own (see .ci/run)",
)

KINDS = ("place", "colour", "where", "relation")
FRAMES = 4
ATTENTION = {"retention_ratio": 0.1}
MAPPER = {"retention_ratio": 0.25, "mapper": "tiny-qwen2-vl", "max_visual_tokens": 4}

own_answers = partial(answer_samples, max_new_tokens=8, batch_size=4)


def own_accuracy(answers: Sequence[str], samples: Sequence[Sample]) -> float:
    pairs = zip(answers, samples, strict=True)
    return sum(is_right(answer, sample) for answer, sample in pairs) / len(samples)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a run."""
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scenes(folder: Path) -> list[Sample]:
    samples = scene_samples(KINDS, 3)
    write_questions(folder, samples)
    return samples


@pytest.mark.parametrize("setting", [ATTENTION, MAPPER], ids=["attention", "mapper"])
def test_images(scenes: list[Sample], setting: dict[str, Any]) -> None:
    model, processor = load_tiny("qwen2-vl")
    uncompressed = own_answers(model, processor, scenes)
    compress(model, setting)
    with model.token_compression.record() as totals:
        expected = own_answers(model, processor, scenes)
    assert expected != uncompressed
    model_args = {"pretrained": "tiny-qwen2-vl", "dtype": "float32", **setting}
    found = run("scenes", model_args=as_text(model_args), batch_size="4")
    assert found.answers == expected
    assert found.accuracy == own_accuracy(expected, scenes)
    assert found.throughput["avg_visual_tokens_before"] == totals.visual_tokens_before
    assert found.throughput["avg_visual_tokens_after"] == totals.visual_tokens_after


def as_text(model_args: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in model_args.items())


def test_all_visual_tokens_kept_is_the_stock_model(scenes: list[Sample]) -> None:
    model, processor = load_tiny("llava-onevision")
    found = run(
        "scenes",
        model_args="pretrained=tiny-llava-onevision,dtype=float32,retention_ratio=1.0",
        batch_size=3,
    )
    assert found.answers == own_answers(model, processor, scenes)


@pytest.mark.parametrize("name", ["qwen2-vl-video", "llava-onevision", "vila"])
def test_videos(folder: Path, name: str) -> None:
    clips = write_questions(
        folder,
        clip_samples(("first", "colour"), 2, frames=FRAMES, frames_per_scene=2)
        + clip_samples(("last",), 2, frames=FRAMES - 1),
    )
    model, processor = load_tiny(name, token_compression=0.25)
    shown = [with_frames(clip, processor, FRAMES) for clip in clips]
    assert len({len(clip.frames) for clip in shown}) == 2
    model_args = (
        f"pretrained=tiny-{name},dtype=float32,retention_ratio=0.25,max_num_frames={FRAMES}"
    )
    found = run("clips", model_args=model_args, batch_size=4)
    assert found.answers == own_answers(model, processor, shown)


def as_lmms_eval_sends_it(image: Image.Image) -> Image.Image:
    """Its class `qwen2_vl` hands images on as JPEG."""
    from lmms_eval.models.model_utils.media_encoder import encode_image_to_data_url

    url = encode_image_to_data_url(
        image, image_format="JPEG", mime_type="image/jpeg", convert_rgb=True, quality=85
    )
    return Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))).convert("RGB")


def test_a_saved_model_is_compressed_under_the_own_class_of_lmms_eval(folder: Path) -> None:
    model, processor = load_tiny("qwen2-vl", token_compression=ATTENTION)
    # Its class adds a system turn, with which the tiny model was not trained.
    turn = "{%- for message in messages -%}"
    assert turn in processor.chat_template
    processor.chat_template = processor.chat_template.replace(
        turn, "{%- for message in messages if message['role'] != 'system' -%}"
    )
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    # 336 pixels: it resizes sides to multiples of 28, and the tiny model's processor to 24.
    scenes = scene_samples(KINDS, 2, rows=7, columns=7)
    write_questions(folder, scenes)
    sent = [replace(item, visuals=(as_lmms_eval_sends_it(item.image),)) for item in scenes]
    expected = own_answers(model, processor, sent)
    with model.token_compression.disabled():
        assert own_answers(model, processor, sent) != expected

    command = "eval --model qwen2_vl --model_args pretrained=model,device_map=cpu --device cpu"
    command += " --tasks scenes --batch_size 4 --output_path out --log_samples"
    # A process that imports hf_token_compress only if lmms-eval does.
    subprocess.run(
        [sys.executable, "-m", "lmms_eval", *command.split(), "--include_path", str(TASKS)],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    (results,) = (folder / "out").rglob("*_results.json")
    (samples,) = (folder / "out").rglob("*_samples_scenes.jsonl")
    lines = sorted(
        map(json.loads, samples.read_text().splitlines()), key=lambda item: item["doc_id"]
    )
    assert [line["filtered_resps"] for line in lines] == expected
    figures = json.loads(results.read_text())["results"]["scenes"]
    assert figures["exact_match,none"] == own_accuracy(expected, scenes)


def test_model_args_change_the_setting_that_was_saved(folder: Path, scenes: list[Sample]) -> None:
    saved = TokenCompressionConfig(**MAPPER)
    model, processor = load_tiny("qwen2-vl", token_compression=saved)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    compress(model, saved.changed({"max_visual_tokens": 3}))
    found = run("scenes", model_args="pretrained=model,max_visual_tokens=3", batch_size=4)
    assert found.answers == own_answers(model, processor, scenes)
    assert found.throughput["avg_visual_tokens_after"] == 3 * len(scenes)


def test_generation_options_of_several_tasks(scenes: list[Sample]) -> None:
    model, processor = load_tiny("qwen2-vl", token_compression=ATTENTION)
    full = own_answers(model, processor, scenes)
    assert any("o" in answer for answer in full)
    model_args = "pretrained=tiny-qwen2-vl,dtype=float32,retention_ratio=0.1"
    both = run("scenes", "scenes_until_o", model_args=model_args, batch_size=5)
    assert both.answers == [*full, *(answer.partition("o")[0].strip() for answer in full)]


def test_max_pixels(scenes: list[Sample]) -> None:
    # 192 pixels a side, of which 24 make a token, become 144.
    model_args = (
        "pretrained=tiny-qwen2-vl,dtype=float32,retention_ratio=1.0,min_pixels=576,max_pixels=20736"
    )
    found = run("scenes", model_args=model_args, batch_size=4)
    assert found.throughput["avg_visual_tokens_before"] == 6 * 6 * len(scenes)


def test_answers_in_the_cache_are_not_asked_again(folder: Path, scenes: list[Sample]) -> None:
    again = partial(
        run,
        "scenes",
        model_args="pretrained=tiny-qwen2-vl,dtype=float32,retention_ratio=0.1",
        use_cache=str(folder / "answers"),
    )
    first, second = again(), again()
    assert second.answers == first.answers
    assert "avg_visual_tokens_before" in first.throughput
    assert "avg_visual_tokens_before" not in second.throughput


def test_conversations_of_several_turns(folder: Path) -> None:
    from hf_token_compress.integrations.lmms_eval.messages import batch_key, read_messages

    image = Image.new("RGB", (48, 24), "red")
    image.save(folder / "red.png")
    chat = read_messages(
        [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [
                    {"type": "image", "url": image},
                    {"type": "text", "text": "Like"},
                    {"type": "image", "url": "red.png"},
                    {"type": "text", "text": "this?"},
                ],
            },
        ],
        None,
        FRAMES,
    )
    assert [turn["role"] for turn in chat] == ["system", "user"]
    first, like, second, this = chat[1]["content"]
    assert like == {"type": "text", "text": "Like"}
    assert this == {"type": "text", "text": "this?"}
    assert first["image"].tobytes() == second["image"].tobytes() == image.tobytes()
    assert batch_key(chat) != batch_key(chat[:1])


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "audio", "url": "speech.wav"}, "audio"),
        ({"type": "video", "url": "a.mp4", "start_time": 1.0}, "part of a video"),
    ],
)
def test_parts_that_cannot_be_read(part: dict[str, Any], words: str) -> None:
    from hf_token_compress.integrations.lmms_eval.messages import read_messages

    with one_sentence(ValueError, words, "choose another task"):
        read_messages([{"role": "user", "content": [part]}], None, FRAMES)


def test_wrong_model_args(scenes: list[Sample]) -> None:
    with one_sentence(ValueError, "retention_ratio", "in (0, 1]", "2"):
        run("scenes", model_args="pretrained=tiny-qwen2-vl,dtype=float32,retention_ratio=2")
