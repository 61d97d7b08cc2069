"""Collecting: the same shards whoever works on them and however often it is stopped."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from collecting_run import COLLECT, SCENES, TRAIN, collect_scenes
from errors import one_sentence
from matrix import full_only
from pairs import assert_same
from PIL import Image
from places import SUPPORT
from safetensors.torch import load_file
from sample_files import question, write_lines
from transformers import AutoProcessor
from vila_reference import CHECKPOINT

from hf_token_compress import RelevanceMapper, load_tiny
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.data.chat import conversation, encode_samples
from hf_token_compress.data.composed import ClipSource, SceneSource
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.data.sources import JsonLines, SampleList
from hf_token_compress.models.vila import VilaForConditionalGeneration
from hf_token_compress.prompt import Modality
from hf_token_compress.relevance import relevance
from hf_token_compress.relevance.explain import explained_family, greedy_answers
from hf_token_compress.scorers.mapper_inputs import mapper_inputs
from hf_token_compress.training.collect import CollectOptions, collect
from hf_token_compress.training.shards import COLLECTION_FILE, INDEX_FILE, ShardFolder
from hf_token_compress.training.train import Epoch, train_mapper
from hf_token_compress.writing import write_json

CLIPS = ClipSource(6, frames=3, frames_per_scene=2, seed=40)
OPTIONS = CollectOptions(rule="edges_absolute", targets="sum", max_new_tokens=8)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """Collected by one process without a stop."""
    collection = collect_scenes(str(tmp_path_factory.mktemp("shards")))
    assert collection is not None
    return collection


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    script = SUPPORT / "collecting_run.py"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return [*arguments, str(script)], environment


# What is in a shard


def test_a_shard_holds_the_attention_and_the_relevance_of_right_answers(
    shards: ShardFolder, tiny: tuple[Any, Any]
) -> None:
    model, processor = tiny
    assert len(shards) + sum(shards.index["skipped"].values()) == len(SCENES)
    assert len(shards) >= 15
    for sample in (shards[0], shards[len(shards) - 1]):
        scene = SCENES[sample.number]
        inputs = processor.apply_chat_template(
            [conversation(scene)],
            **{"tokenize": True, "add_generation_prompt": True},
            **{"return_dict": True, "return_tensors": "pt"},
        )
        (explained,) = relevance(
            model, inputs, rule="edges_absolute", targets="sum", max_new_tokens=8
        ).samples
        given = processor.decode(explained.answer_ids, skip_special_tokens=True).strip()
        assert given == scene.answer
        torch.testing.assert_close(sample.relevance, explained.scores, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            prompt, layer = read_prompt(model, inputs)
            (seen,) = mapper_inputs(prompt, layer, "image")
        assert seen is not None
        torch.testing.assert_close(sample.attention, seen.attention.half(), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(sample.text, seen.text, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(sample.embedding, seen.embedding, rtol=1e-3, atol=1e-4)
        assert torch.equal(sample.grids[0], torch.arange(64).view(1, 8, 8))


@pytest.mark.parametrize(
    ("model", "modality", "rule"),
    [
        ("qwen2-vl", "image", "gradient_input"),
        ("llava-onevision", "video", "edges_absolute"),
        full_only("llava-onevision", "image", "gae"),
        full_only("qwen2-vl-video", "video", "gradient_input"),
        full_only("vila", "image", "edges_absolute"),
        full_only("vila", "video", "gradient_input"),
        full_only("qwen2-vl", "image", "occlusion"),
    ],
)
def test_each_batch_is_encoded_once_and_collected_as_from_pixels(
    model: str, modality: Modality, rule: str, tmp_path: Path
) -> None:
    """To the bit, though the second answer, to the longest question, is wrong."""
    loaded, processor = load_tiny(model)
    source = SCENES if modality == "image" else CLIPS
    asked = [Sample(modality, source[n].visuals, source[n].question) for n in range(3)]
    wrong = Sample(modality, asked[1].visuals, asked[1].question + " Please.", "rhubarb")
    samples = [asked[0], wrong, asked[2]]
    runs: list[Any] = []
    tower = loaded.get_encoder(modality=modality)
    hook = tower.register_forward_hook(lambda *given: runs.append(given))
    options = CollectOptions(modality=modality, rule=rule, max_new_tokens=2)
    collection = collect(loaded, processor, SampleList(samples), tmp_path, options)
    hook.remove()
    assert len(runs) == 1
    assert collection is not None
    right = [samples[0], samples[2]]
    answers = greedy_answers(
        loaded, explained_family(loaded), encode_samples(processor, samples), 2
    )
    inputs = encode_samples(processor, right)
    report = relevance(loaded, inputs, answer_ids=[answers[0], answers[2]], rule=rule)
    with torch.no_grad():
        seen = mapper_inputs(*read_prompt(loaded, inputs), modality)
    assert len(collection) == 2
    for place, (explained, attention) in enumerate(zip(report.samples, seen, strict=True)):
        assert attention is not None
        assert torch.equal(collection[place].relevance, explained.scores)
        assert torch.equal(collection[place].attention, attention.attention.half())
        assert torch.equal(collection[place].text, attention.text)
        assert torch.equal(collection[place].embedding, attention.embedding)


def test_a_model_in_training_is_asked_as_in_evaluation(tmp_path: Path) -> None:
    model, processor = load_tiny("qwen2-vl")
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    # As LoRA layers drop out where the fingerprint of the model is taken.
    query_projection = model.get_decoder().layers[0].self_attn.q_proj
    query_projection.register_forward_hook(
        lambda module, _, output: torch.dropout(output, 0.5, module.training)
    )
    source = SampleList([SCENES[0], SCENES[1]])
    expected = collect(model, processor, source, tmp_path / "evaluation", OPTIONS)
    model.train()
    model.model.visual.eval()
    before = [module.training for module in model.modules()]
    collection = collect(model, processor, source, tmp_path / "training", OPTIONS)
    assert [module.training for module in model.modules()] == before
    assert collection is not None
    assert expected is not None
    assert contents(collection.folder) == contents(expected.folder)


def test_only_right_answers_are_collected(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    good, bad = SCENES[0], SCENES[1]
    source = SampleList([good, Sample("image", bad.visuals, bad.question, "rhubarb"), SCENES[2]])
    collection = collect(*tiny, source, tmp_path, OPTIONS)
    assert collection is not None
    assert [collection[place].number for place in range(len(collection))] == [0, 2]
    (skipped,) = collection.index["skipped_samples"]
    assert skipped["number"] == 1
    assert skipped["reason"] == "answered wrongly"
    assert "'rhubarb'" in skipped["detail"]


def test_without_an_answer_the_models_own_is_explained(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    scene = SCENES[0]
    source = SampleList([Sample("image", scene.visuals, scene.question)])
    collection = collect(*tiny, source, tmp_path, OPTIONS)
    assert collection is not None
    assert len(collection) == 1


def test_videos_are_collected_as_videos(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """Two frames of a video make one frame of visual tokens."""
    for number in range(2):
        make_scene(number, 4, 4, split="mapper").image.save(tmp_path / f"{number}.png")
    frames = ["0.png", "0.png", "1.png", "1.png"]
    path = write_lines(tmp_path, {"video": frames, "question": "Is there a cat?"})
    options = CollectOptions(modality="video", max_new_tokens=8)
    collection = collect(*tiny, JsonLines(path), tmp_path / "shards", options)
    assert collection is not None
    sample = collection[0]
    (grid,) = sample.grids
    assert torch.equal(grid, torch.arange(2 * 8 * 8).view(2, 8, 8))
    assert sample.attention.shape == (2, 6, grid.numel())


@pytest.mark.parametrize(
    ("model", "tokens", "grid"),
    [
        # Six frames joined two by two, of 4 x 4 cells of 2 x 2 tokens.
        ("qwen2-vl", 3 * 8 * 8, (3, 8, 8)),
        # Six frames of 4 x 4 tokens and one newline, which lies on no grid.
        ("llava-onevision", 6 * 4 * 4 + 1, (6, 4, 4)),
    ],
)
def test_clips_are_collected_with_all_their_frames(
    model: str, tokens: int, grid: tuple[int, int, int], tmp_path: Path
) -> None:
    clips = [CLIPS[number] for number in range(len(CLIPS))]
    unknown = [Sample("video", item.visuals, item.question) for item in clips]
    options = CollectOptions(modality="video", targets="sum", max_new_tokens=4)
    collection = collect(*load_tiny(model), SampleList(unknown), tmp_path, options)
    assert collection is not None
    assert len(collection) == len(clips)
    for place in range(len(clips)):
        sample = collection[place]
        (found,) = sample.grids
        assert found.shape == grid
        assert torch.equal(found.flatten(), torch.arange(found.numel()))
        assert sample.attention.shape[-1] == len(sample.relevance) == tokens
    network = train_mapper(collection, tmp_path / "mapper", TRAIN)
    assert network.config.modality == "video"


def test_all_given_frames_count_where_the_processor_would_take_some(tmp_path: Path) -> None:
    """VILA's takes eight frames of a video; its tokens run column by column."""
    model = VilaForConditionalGeneration.from_pretrained(CHECKPOINT).eval()
    clip = ClipSource(1, frames=3, frames_per_scene=4)[0]
    sample = Sample("video", clip.visuals, clip.question)
    options = CollectOptions(
        modality="video", targets="sum", max_new_tokens=2, max_prompt_tokens=2000
    )
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    collection = collect(model, processor, SampleList([sample]), tmp_path, options)
    assert collection is not None
    (grid,) = collection[0].grids
    assert torch.equal(grid, torch.arange(12 * 9).view(12, 3, 3).transpose(1, 2))


def test_videos_of_different_lengths_are_collected_apart(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    """Frames and the animation of them give the same, whatever they are collected with."""
    question, frames = CLIPS[0].question, CLIPS[0].frames[::2]
    first, *others = frames
    first.save(tmp_path / "clip.webp", save_all=True, append_images=others, lossless=True)
    given = Sample("video", (frames,), question)
    file = Sample("video", (str(tmp_path / "clip.webp"),), question)
    short = Sample("video", (frames[:2],), question)
    missing = Sample("video", (str(tmp_path / "none.mp4"),), question)
    options = CollectOptions(modality="video", targets="sum", max_new_tokens=4)
    source = SampleList([given, short, file, missing])
    collection = collect(*tiny, source, tmp_path / "shards", options)
    assert collection is not None
    assert [collection[place].number for place in range(len(collection))] == [0, 1, 2]
    assert torch.equal(collection[0].relevance, collection[2].relevance)
    assert len(collection[1].relevance) == 64
    (skipped,) = collection.index["skipped_samples"]
    assert skipped["reason"] == "cannot be read"
    assert "none.mp4" in skipped["detail"]


def test_frames_of_a_video_file(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """A collection that was started without their number continues without it."""
    clip = ClipSource(1, frames=6)[0]
    first, *others = clip.frames
    first.save(tmp_path / "clip.webp", save_all=True, append_images=others, lossless=True)
    source = SampleList([Sample("video", (str(tmp_path / "clip.webp"),), clip.question)])
    options = CollectOptions(modality="video", targets="sum", max_new_tokens=4)

    def tokens(folder: str, frames: int | None) -> int:
        chosen = dataclasses.replace(options, frames=frames)
        collection = collect(*tiny, source, tmp_path / folder, chosen)
        assert collection is not None
        return len(collection[0].relevance)

    assert tokens("some", 4) == 2 * 64
    with one_sentence(ValueError, "other options (frames)"):
        tokens("some", 8)
    former = tmp_path / "former"
    assert tokens("former", None) == 3 * 64
    before = contents(former)
    (shard,) = former.glob("shard-*.safetensors")
    shard.unlink()
    (former / INDEX_FILE).unlink()
    assert tokens("former", CollectOptions.frames) == 3 * 64
    assert contents(former) == before
    with one_sentence(ValueError, "other options (frames)"):
        tokens("former", 4)


def test_a_collection_of_an_earlier_version_continues_with_attention_only(
    tiny: tuple[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those have no inputs in their collection.json, and format 1 in their index."""
    source = SampleList([Sample("image", (SCENES[0].image,), SCENES[0].question)] * 2)
    options = dataclasses.replace(OPTIONS, shard_size=1)
    collection = collect(*tiny, source, tmp_path, options)
    assert collection is not None
    attention = collection[0].attention
    started = json.loads((tmp_path / COLLECTION_FILE).read_text())
    assert started.pop("inputs") == ["attention", "text", "embedding"]
    write_json(tmp_path / COLLECTION_FILE, started)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    write_json(tmp_path / INDEX_FILE, {**index, "format": 1})
    assert ShardFolder(tmp_path).inputs == ("attention",)
    (tmp_path / "shard-00001.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        collection = collect(*tiny, source, tmp_path, options)
    assert "earlier version" in caplog.text
    assert "text and embedding" in caplog.text
    assert collection is not None
    assert collection[1].text is None
    assert torch.equal(collection[1].attention, attention)
    assert set(load_file(tmp_path / "shard-00001.safetensors")) == {
        "1.attention",
        "1.relevance",
        "1.grid.0",
    }


# Stopped, and by several processes


def test_a_killed_run_goes_on_without_loss_or_double_work(
    shards: ShardFolder, tmp_path: Path
) -> None:
    arguments, environment = command(sys.executable)
    process = subprocess.Popen([*arguments, str(tmp_path)], env=environment)
    while len(list(tmp_path.glob("shard-*"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    assert 2 <= len(done) < len(shards.index["shards"])
    # As if it had been killed while it wrote, and the disk had lost a part of another shard.
    (tmp_path / ".shard-00004.safetensors.1.part").write_bytes(b"half a sh")
    (tmp_path / "shard-00006.safetensors").write_bytes(b"half a sh")
    worked: list[int] = []
    collect_scenes(str(tmp_path), after_sample=worked.append)
    assert contents(tmp_path) == contents(shards.folder)
    for name, written in done.items():
        assert (tmp_path / name).stat().st_mtime_ns == written, name
    assert sum(worked) == len(SCENES)


def in_two_processes(*runs: tuple[Path, ...]) -> None:
    """Run the script under `accelerate launch`, which without this option starts one on a CPU."""
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    more = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    arguments, environment = command(sys.executable, *launch, *more, "--main_process_port", "0")
    environment["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run(
        [*arguments, *(os.pathsep.join(map(str, folders)) for folders in runs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 of 2", "1 of 2"]


def assert_same_weights(folder: Path, mapper: RelevanceMapper) -> None:
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == mapper.state_dict().keys()
    for name, value in mapper.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(shards: ShardFolder, tmp_path_factory: pytest.TempPathFactory) -> RelevanceMapper:
    """Trained by one process without a stop."""
    return train_mapper(shards, tmp_path_factory.mktemp("alone"), TRAIN)


@pytest.fixture(scope="module")
def launched(shards: ShardFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made: all from the start, and the rest of a training that was stopped.

    Of the latter only the main process has the checkpoint.
    """
    folder = tmp_path_factory.mktemp("launched")

    def stop(_: Epoch) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_mapper(shards, folder / "mapper-0", TRAIN, after_epoch=stop)
    in_two_processes(
        (folder / "shards", folder / "mapper"),
        (shards.folder, folder / "mapper-RANK", folder / "calibrated-RANK"),
    )
    return folder


def test_two_processes_give_the_shards_and_the_weights_of_one(
    launched: Path, shards: ShardFolder, alone: RelevanceMapper
) -> None:
    assert contents(launched / "shards") == contents(shards.folder)
    assert_same_weights(launched / "mapper", alone)


def test_processes_that_share_no_folder_go_on_together(
    launched: Path, alone: RelevanceMapper
) -> None:
    """A training that was stopped, and a calibration."""
    assert_same_weights(launched / "mapper-0", alone)
    assert_same_weights(
        launched / "calibrated-1", RelevanceMapper.from_pretrained(launched / "calibrated-0")
    )


def test_another_collection_is_not_mixed_in(shards: ShardFolder, tiny: tuple[Any, Any]) -> None:
    before = contents(shards.folder)
    with one_sentence(ValueError, str(shards.folder), "of other data"):
        collect(*tiny, SceneSource(21, seed=501), shards.folder, COLLECT)
    with one_sentence(ValueError, "other options (shard_size, batch_size)"):
        collect(*tiny, SCENES, shards.folder, OPTIONS)
    with one_sentence(ValueError, "of another model"):
        collect(*tiny, SCENES, shards.folder, COLLECT, base_model="someone/else")
    model, processor = load_tiny("qwen2-vl", dtype="bfloat16")
    with one_sentence(ValueError, "in float32, not bfloat16"):
        collect(model, processor, SCENES, shards.folder, COLLECT)
    assert contents(shards.folder) == before


def test_a_collection_that_was_started_with_match_goes_on(
    shards: ShardFolder, tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    """`match` is the former name of `metric`; its default was "exact"."""
    folder = tmp_path / "shards"
    shutil.copytree(shards.folder, folder)
    started = json.loads((folder / COLLECTION_FILE).read_text())
    assert started["options"].pop("metric") == "auto"
    for former, metric in (("exact", "auto"), ("exact", "exact"), ("contains", "contains")):
        started["options"]["match"] = former
        (folder / COLLECTION_FILE).write_text(json.dumps(started))
        options = dataclasses.replace(COLLECT, metric=metric)
        collection = collect(*tiny, SCENES, folder, options)
        assert collection is not None
        assert len(collection) == len(shards)
    with one_sentence(ValueError, "other options (metric)"):
        collect(*tiny, SCENES, folder, COLLECT)


# Data


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with questions, in a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        make_scene(number, 4, 4, split="mapper").image.save(folder / f"{number}.png")
    return folder


def test_json_lines_with_every_kind_of_bad_sample(
    pictures: Path, tiny: tuple[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "text.png").write_text("no picture")
    (pictures / "cut.png").write_bytes((pictures / "0.png").read_bytes()[:4000])
    Image.new("RGB", (900, 2)).save(pictures / "thin.png")
    text, answer = question(0)
    good = {"image": "0.png", "question": text, "answer": answer}
    long = {**good, "question": text + " please" * 200}
    path = write_lines(
        pictures,
        good,
        {**good, "image": "missing.png"},
        {**good, "image": "text.png"},
        {**good, "image": "cut.png"},
        {**good, "image": "thin.png"},
        '{"image": "0.png", "questi',
        {"image": "0.png"},
        {"question": text},
        {"video": "clip.mp4", "question": text},
        long,
        {**good, "image": ["0.png", "1.png"]},
        "[1, 2]",
        {**good, "answer": None},
    )
    options = CollectOptions(
        rule="edges_absolute",
        targets="sum",
        max_new_tokens=8,
        max_prompt_tokens=200,
        metric="contains",
    )
    with caplog.at_level(logging.WARNING):
        collection = collect(*tiny, JsonLines(path), tmp_path, options)
    assert collection is not None
    numbers = [collection[place].number for place in range(len(collection))]
    skipped = {item["number"]: item for item in collection.index["skipped_samples"]}
    assert sorted([*numbers, *skipped]) == list(range(13))
    assert {0, 12} <= set(numbers) <= {0, 10, 12}
    assert skipped[9]["reason"] == "too long"
    assert skipped[8]["reason"] == "other modality"
    for number in (1, 2, 3, 4, 5, 6, 7, 11):
        assert skipped[number]["reason"] == "cannot be read", skipped[number]
        assert skipped[number]["detail"]
        assert f"Sample {number} is skipped: cannot be read" in caplog.text
    assert collection.index["skipped"]["cannot be read"] == 8


@pytest.mark.parametrize(
    ("spare", "positions", "words"),
    [
        (0, 1000, "more than max_prompt_tokens={length}"),
        (1000, 8, "max_new_tokens=8 are more than the {positions} positions of the model"),
        (None, 8, "max_new_tokens=8 are more than the {positions} positions of the model"),
    ],
)
def test_prompts_up_to_either_limit_are_collected(
    spare: int | None,
    positions: int,
    words: str,
    tiny: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first prompt is as long as the limit allows, the second one word longer."""
    model, processor = tiny
    scene = SCENES[0]
    fits = Sample("image", scene.visuals, scene.question)
    longer = Sample("image", scene.visuals, scene.question + " please")
    encoded = processor.apply_chat_template(
        [conversation(fits)], tokenize=True, add_generation_prompt=True, return_dict=True
    )
    length = len(encoded["input_ids"][0])
    text = model.config.get_text_config()
    monkeypatch.setattr(text, "max_position_embeddings", length + positions)
    limit = None if spare is None else length + spare
    options = CollectOptions(targets="sum", max_new_tokens=8, max_prompt_tokens=limit)
    collection = collect(model, processor, SampleList([fits, longer]), tmp_path, options)
    assert collection is not None
    assert [collection[place].number for place in range(len(collection))] == [0]
    (skipped,) = collection.index["skipped_samples"]
    assert skipped["reason"] == "too long"
    assert words.format(length=length, positions=length + positions) in skipped["detail"]


def test_a_collection_without_a_single_sample(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    scene = SCENES[0]
    wrong = SampleList([Sample("image", scene.visuals, scene.question, "rhubarb")])
    with one_sentence(ValueError, "Not one of 1 samples", "'rhubarb'"):
        collect(*tiny, wrong, tmp_path / "wrong", OPTIONS)
    with one_sentence(ValueError, "it has an image"):
        collect(*tiny, wrong, tmp_path / "videos", CollectOptions(modality="video"))
    with one_sentence(ValueError, "no samples to collect from"):
        collect(*tiny, SampleList([]), tmp_path / "empty", OPTIONS)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"modality": "sound"}, ValueError, ("modality", "'image' or 'video'", "'sound'")),
        ({"metric": "Contains"}, ValueError, ("metric", "'exact'", "'contains'", "'Contains'")),
        ({"targets": "nope"}, ValueError, ("targets", "'per_token' or 'sum'", "'nope'")),
        ({"instruction": "lastturn"}, ValueError, ("instruction", "'last_turn'", "'lastturn'")),
        ({"shard_size": 0}, ValueError, ("shard_size", "at least 1", "0")),
        ({"batch_size": 0}, ValueError, ("batch_size", "at least 1", "0")),
        ({"max_new_tokens": 0}, ValueError, ("max_new_tokens", "at least 1", "0")),
        ({"max_prompt_tokens": 0}, ValueError, ("max_prompt_tokens", "at least 1", "0")),
        ({"scoring_depth": -1}, ValueError, ("scoring_depth", "at least 0", "-1")),
        ({"batch_size": 1.5}, TypeError, ("batch_size", "whole number", "float")),
        ({"rule": None}, TypeError, ("rule", "NoneType")),
        ({"rule_options": "target=margin"}, TypeError, ("rule_options", "dict", "str")),
        ({"recursive": "no"}, TypeError, ("recursive", "True or False", "str")),
    ],
)
def test_options_that_there_are_not(
    options: dict[str, Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    with one_sentence(kind, *words):
        CollectOptions(**options)


def test_any_callable_may_be_the_metric() -> None:
    given = functools.partial(str.startswith)
    assert CollectOptions(metric=given).to_dict()["metric"] == "partial"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "nope"}, ("no rule named 'nope'", "edges_absolute")),
        ({"rule_options": {"depth": 1}}, ("has no option", "depth", "target")),
        ({"rule_options": {"target": "nope"}}, ("target", "'margin'", "'nope'")),
        ({"rule": "occlusion", "rule_options": {"batch_size": 0}}, ("batch_size", "at least 1")),
        ({"scoring_depth": 99}, ("scoring_depth", "99")),
    ],
)
def test_options_that_fail_for_every_sample_leave_no_trace(
    options: dict[str, Any], words: tuple[str, ...], tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    with one_sentence(ValueError, *words):
        collect(*tiny, SCENES, folder, CollectOptions(**options))
    assert not folder.exists()


def test_a_folder_that_is_not_a_finished_collection(shards: ShardFolder, tmp_path: Path) -> None:
    with one_sentence(FileNotFoundError, "no collection.json"):
        ShardFolder(tmp_path)
    for name, content in contents(shards.folder).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "shard-00001.safetensors").unlink()
    with one_sentence(ValueError, "lacks the shard shard-00001.safetensors"):
        ShardFolder(tmp_path)
    (tmp_path / "shard-00001.safetensors").write_bytes(b"half a sh")
    with one_sentence(ValueError, "shard-00001.safetensors is damaged"):
        ShardFolder(tmp_path)
    (tmp_path / "index.json").unlink()
    with one_sentence(FileNotFoundError, "not finished"):
        ShardFolder(tmp_path)


def test_collected_attention_is_close_to_what_the_scorer_sees(shards: ShardFolder) -> None:
    """Stored in half precision: a hundredth at most in the logarithm."""
    sample = shards[0]
    assert sample.attention.dtype == torch.float16
    item = sample.mapper_input()
    assert item.attention.dtype == torch.float32
    assert_same(item.attention, sample.attention.float())
