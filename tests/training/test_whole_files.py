"""Files are written whole or not at all, and damaged ones are named."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from collecting_run import SCENES, TRAIN, collect_scenes
from errors import one_sentence
from mappers import IDENTITY, make_input, make_mapper
from places import SUPPORT
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_token_compress.training.shards import (
    CollectedSample,
    Shard,
    ShardFolder,
    SkippedSample,
    shard_path,
    shard_summary,
    write_index,
    write_shard,
)
from hf_token_compress.training.train import read_history, train_mapper
from hf_token_compress.writing import clear_parts, write_json, write_whole

pytestmark = pytest.mark.core


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Writing


def test_a_full_disk_loses_no_mapper(tmp_path: Path) -> None:
    make_mapper(seed=1).save_pretrained(tmp_path)
    before = contents(tmp_path)
    size = len(before["model.safetensors"])
    # The weights fit, the longer card does not.
    second = make_mapper(seed=2, training={"notes": "x" * size})
    for limit in (size // 2, size + 100):
        with small_disk(limit), one_sentence(OSError, str(tmp_path), "cannot be written"):
            second.save_pretrained(tmp_path)
        assert contents(tmp_path) == before
    second.save_pretrained(tmp_path)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)["model.safetensors"] != before["model.safetensors"]


def test_only_what_stopped_writers_left_is_cleared(tmp_path: Path) -> None:
    stray, live, other = (tmp_path / name for name in (".a.1.part", ".b.2.part", "c.part"))
    for path in (stray, live, other):
        path.write_bytes(b"half")
    with live.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_parts(tmp_path)
        assert set(contents(tmp_path)) == {".b.2.part", "c.part"}
    clear_parts(tmp_path)
    assert set(contents(tmp_path)) == {"c.part"}


def test_writers_survive_whoever_clears_meanwhile(tmp_path: Path) -> None:
    done = Event()

    def clear() -> None:
        while not done.is_set():
            clear_parts(tmp_path)

    thread = Thread(target=clear)
    thread.start()
    try:
        for number in range(200):
            write_whole({tmp_path / "file": str(number).encode()})
            assert (tmp_path / "file").read_bytes() == str(number).encode()
    finally:
        done.set()
        thread.join()
    assert set(contents(tmp_path)) == {"file"}


def test_two_runs_on_one_folder_both_end_right(tmp_path: Path) -> None:
    """Started apart, without knowing of each other."""
    expected = collect_scenes(str(tmp_path / "alone"))
    assert expected is not None
    arguments = [sys.executable, str(SUPPORT / "collecting_run.py"), str(tmp_path / "both")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    runs = [
        subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    assert contents(tmp_path / "both") == contents(expected.folder)


# Shards


def write_collection(folder: Path) -> ShardFolder:
    """A finished collection of two shards."""
    for number in range(2):
        samples = []
        for index in range(number * 4, number * 4 + 4):
            item = make_input((1, 4, 4), seed=index)
            relevance = item.attention[0, 1].exp()
            samples.append(CollectedSample.of(index, item, relevance))
        skipped = [SkippedSample(number * 4 + 4, "too long", "its prompt")]
        write_shard(shard_path(folder, number), Shard(samples, skipped))
    write_index(folder, [shard_path(folder, number) for number in range(2)])
    options: dict[str, Any] = {"modality": "image", "scoring_depth": 0, "instruction": "last_turn"}
    options |= {"rule": "gae", "rule_options": {}, "targets": "sum", "recursive": False}
    content = {"base_model": IDENTITY.to_dict(), "data": {}, "options": options}
    write_json(folder / "collection.json", content)
    return ShardFolder(folder)


def test_every_flipped_bit_of_a_shard_is_found(tmp_path: Path) -> None:
    write_collection(tmp_path)
    path = shard_path(tmp_path, 1)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 150):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with one_sentence(ValueError, "shard-00001.safetensors is damaged", "`collect` again"):
            ShardFolder(tmp_path)
    path.write_bytes(whole)
    assert len(ShardFolder(tmp_path)) == 8


def test_a_shard_without_a_digest_is_read(tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    collection = write_collection(tmp_path)
    path = shard_path(tmp_path, 0)
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["shard"])
    assert len(content.pop("sha256")) == 64
    before, summary = collection[0], shard_summary(path)
    save_file(load_file(path), path, {"shard": json.dumps(content)})
    assert shard_summary(path) == summary
    again = ShardFolder(tmp_path)[0]
    assert torch.equal(again.attention, before.attention)
    assert torch.equal(again.relevance, before.relevance)


def test_a_flipped_byte_is_collected_again(tmp_path: Path) -> None:
    collect_scenes(str(tmp_path))
    before = contents(tmp_path)
    path = shard_path(tmp_path, 2)
    changed = bytearray(before[path.name])
    changed[-3] ^= 8
    path.write_bytes(changed)
    (tmp_path / "index.json").write_text("{")
    worked: list[int] = []
    collect_scenes(str(tmp_path), after_sample=worked.append)
    assert contents(tmp_path) == before
    assert sum(worked) == len(SCENES)


# Damaged files


@pytest.mark.parametrize("name", ["../shard-00001.safetensors", "/tmp/x", "shard-00001", ""])
def test_an_index_names_only_shards_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "collection"
    write_collection(folder)
    shard_path(folder, 1).rename(tmp_path / "shard-00001.safetensors")
    index = json.loads((folder / "index.json").read_text())
    write_json(folder / "index.json", {**index, "shards": {name: 4}})
    with one_sentence(ValueError, "index.json", repr(name)):
        ShardFolder(folder)


@pytest.mark.parametrize("name", ["index.json", "collection.json"])
@pytest.mark.parametrize("content", [b'{"shards": {', b"[]", b"null", b"{}", b"\xff"])
def test_a_damaged_file_of_a_collection(name: str, content: bytes, tmp_path: Path) -> None:
    write_collection(tmp_path)
    (tmp_path / name).write_bytes(content)
    with one_sentence(ValueError, f"{name} of the collection", "`collect` again"):
        ShardFolder(tmp_path)


@pytest.mark.parametrize("inputs", [None, "text", ["text"], ["attention", "colour"]])
def test_a_collection_names_inputs_that_there_are(inputs: object, tmp_path: Path) -> None:
    write_collection(tmp_path)
    content = json.loads((tmp_path / "collection.json").read_text())
    write_json(tmp_path / "collection.json", {**content, "inputs": inputs})
    with one_sentence(ValueError, "collection.json of the collection", "inputs", repr(inputs)):
        ShardFolder(tmp_path)


def test_a_shard_without_an_input_of_its_collection(tmp_path: Path) -> None:
    """As where a collection.json is written anew beside shards of an earlier version."""
    write_collection(tmp_path)
    content = json.loads((tmp_path / "collection.json").read_text())
    everything = ["attention", "text", "embedding"]
    write_json(tmp_path / "collection.json", {**content, "inputs": everything})
    item = make_input((1, 4, 4))
    old = CollectedSample(0, item.attention, item.attention[0, 1].exp(), item.grids)
    write_shard(shard_path(tmp_path, 0), Shard([old]))
    with one_sentence(ValueError, "shard-00000", "no text and no embedding", "collect again"):
        ShardFolder(tmp_path)[0]


def test_a_cut_collection_file_is_named_and_can_be_written_anew(tmp_path: Path) -> None:
    collect_scenes(str(tmp_path))
    before = contents(tmp_path)
    path = tmp_path / "collection.json"
    path.write_bytes(before[path.name][:40])
    with one_sentence(ValueError, "collection.json", "delete that file"):
        collect_scenes(str(tmp_path))
    path.unlink()
    collect_scenes(str(tmp_path))
    assert contents(tmp_path) == before


def test_damaged_files_of_a_training(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection")
    output = tmp_path / "mapper"
    output.mkdir()
    (output / ".checkpoint.safetensors.1.part").write_bytes(b"half a ch")
    expected = train_mapper(collection, output, TRAIN)
    names = {"checkpoint.safetensors", "history.json", "README.md"}
    assert set(contents(output)) == {*names, "config.json", "model.safetensors"}
    checkpoint = output / "checkpoint.safetensors"
    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(checkpoint)
    missing = {name: value for name, value in tensors.items() if not name.endswith("output.weight")}
    for values, texts in (
        (tensors, None),
        (tensors, {**metadata, "history": "{"}),
        (tensors, {**metadata, "history": '[{"number": 1}]'}),
        ({**tensors, "other/x": torch.zeros(1)}, metadata),
        (missing, metadata),
    ):
        save_file(values, checkpoint, texts)
        with one_sentence(ValueError, "checkpoint.safetensors", "train again"):
            train_mapper(collection, output, TRAIN)
    checkpoint.unlink()
    again = train_mapper(collection, output, TRAIN)
    for name, value in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    (output / "history.json").write_text("{")
    with one_sentence(ValueError, "history.json"):
        read_history(output)
