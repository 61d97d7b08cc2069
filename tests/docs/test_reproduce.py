"""The commands of docs/reproduce.md, on stand-ins of the data sets that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from code_blocks import code_blocks, library_commands
from errors import one_sentence
from matrix import full_only
from PIL import Image
from places import REPOSITORY
from published_datasets import (
    write_activitynet_qa,
    write_infinity_mm,
    write_llava_video,
    write_nextqa,
)
from transformers import AutoProcessor, Qwen2VLImageProcessor
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.cli import app
from hf_token_compress.cli.data_options import DataOptions
from hf_token_compress.cli.options import takes
from hf_token_compress.data.check import check_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import HubDataset, SampleSource
from hf_token_compress.integrations.lmms_eval.arguments import read_arguments
from hf_token_compress.mapper import load_mappers
from hf_token_compress.tiny import resolve_model
from hf_token_compress.training.shards import ShardFolder

PAGE = REPOSITORY / "docs/reproduce.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = code_blocks(PAGE)
NAME = "a-model"


def commands(verb: str) -> list[list[str]]:
    found = [words for block in BLOCKS for words in library_commands(block.text)]
    named = ([word.replace("$name", NAME) for word in words] for words in found)
    return [words[1:] for words in named if words[0] == verb]


def about(verb: str, words: str) -> list[str]:
    """The one command that has these words."""
    (found,) = [command for command in commands(verb) if words in " ".join(command)]
    return found


def with_value(command: list[str], flag: str, value: str) -> list[str]:
    place = command.index(flag) + 1
    return [*command[:place], value, *command[place + 1 :]]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    return f"{result.exit_code} {result.output}"


def source_of(command: list[str]) -> SampleSource:
    """What a command reads, from its options as the command line reads them."""
    found: list[DataOptions] = []
    reader = typer.Typer()

    @reader.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    @takes(DataOptions, "data")
    def read(data: DataOptions) -> None:
        found.append(data)

    result = CliRunner().invoke(reader, command)
    assert result.exit_code == 0, result.output
    source = found[0].source()
    assert check_samples(source).bad == []
    return source


def read_all(command: list[str]) -> list[Sample]:
    source = source_of(command)
    return [source.peek(number) for number in range(len(source))]


def run_python(words: str) -> None:
    """Run the one Python block that has these words."""
    (block,) = [item.text for item in BLOCKS if item.language == "python" and words in item.text]
    exec(compile(block, str(PAGE), "exec"), {})


def unpack_infinity_mm() -> None:
    """As the page says, in the working directory."""
    (unpacking,) = [block for block in BLOCKS if "tar -xf" in block.text]
    subprocess.run(["bash", "-euc", unpacking.text], check=True)
    run_python("random.Random")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, to which paths of the page are relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_infinity_mm_is_collected_and_trained_on(folder: Path) -> None:
    asked = write_infinity_mm(folder / "Infinity-MM")
    # As the page says, and why it unpacks the files.
    with one_sentence(ValueError, "cannot be read", "int too large"):
        HubDataset("Infinity-MM", columns={"image": "jpg", "question": "json.conversations"})
    unpack_infinity_mm()
    command = with_value(about("collect", "Infinity-MM"), "--model", "tiny-qwen2-vl")
    samples = read_all(command)
    assert sorted((sample.question, sample.answer) for sample in samples) == sorted(asked)
    assert {sample.kind for sample in samples} == {"llava"}
    assert all(sample.visuals[0].stat().st_size for sample in samples)
    done = run("collect", *command, "--dtype", "float32", "--max-new-tokens", "4")
    shards = Path(command[command.index("--output") + 1])
    assert f"\n{len(ShardFolder(shards))} samples in" in done, done
    assert len(ShardFolder(shards)) >= 2
    done = run("train", *about("train", f"{NAME}/image"), "--epochs", "1")
    assert done.startswith("0 "), done
    mapper = load_mappers(f"mappers/{NAME}").mappers["image"]
    assert (mapper.config.network, mapper.config.inputs) == ("conv1d", ("attention",))


@pytest.mark.parametrize("subset", ["0_30_s_academic_v0_1", "0_30_s_nextqa", "1_2_m_activitynetqa"])
def test_llava_video(folder: Path, subset: str) -> None:
    asked = write_llava_video(folder / "LLaVA-Video-178K")[subset]
    command = about("collect", subset)
    if "--dataset" in command:
        command = with_value(command, "--dataset", "LLaVA-Video-178K")
    samples = read_all(command)
    assert [(sample.question, sample.answer) for sample in samples] == [item[:2] for item in asked]
    for sample, (_, _, name) in zip(samples, asked, strict=True):
        (video,) = sample.visuals
        assert video.startswith(f"LLaVA-Video-178K/{subset}/")
        assert video.endswith(name)
        assert Path(video).is_file()
    # All options of the command are right, and its data: only the model is missing.
    assert "no config.json" in run("collect", *with_value(command, "--model", str(folder)))


@pytest.mark.parametrize("model", [full_only("tiny-qwen2-vl-video")])
def test_llava_video_is_collected(folder: Path, model: str) -> None:
    write_llava_video(folder / "LLaVA-Video-178K")
    command = with_value(about("collect", "activitynetqa"), "--model", model)
    done = run("collect", *command, "--dtype", "float32", "--max-new-tokens", "4")
    assert done.startswith("0 "), done
    collection = ShardFolder(Path(command[command.index("--output") + 1]))
    # Eight frames, merged in pairs.
    assert len(collection[0].relevance) == 8 // 2 * 64


def test_nextqa(folder: Path) -> None:
    asked = write_nextqa(folder / "NExTQA", folder / "NExTVideo")
    command = with_value(about("evaluate", "NExTQA"), "--dataset", "NExTQA")
    samples = read_all(command)
    assert [(sample.question, sample.choices, sample.answer) for sample in samples] == asked
    assert [sample.visuals for sample in samples] == [
        (f"NExTVideo/1164/{4010069381 + number}.mp4",) for number in range(2)
    ]
    assert samples[0].kind == "CH"


def test_activitynet_qa(folder: Path) -> None:
    asked = write_activitynet_qa(folder / "ActivityNetQA", folder / "activitynet")
    command = with_value(about("evaluate", "ActivityNetQA"), "--dataset", "ActivityNetQA")
    samples = read_all(command)
    assert [(sample.question, sample.answer) for sample in samples] == asked
    assert [Path(str(sample.visuals[0])).name for sample in samples] == [
        "v_1QIUV7WYKX0.mp4",
        "v_1QIUV7WYKX1.mkv",
    ]
    assert samples[0].prompt.splitlines()[1] == "Answer with a single word or phrase."


def test_train_commands_read_what_the_collect_commands_write() -> None:
    written = [command[command.index("--output") + 1] for command in commands("collect")]
    read = []
    for command in commands("train"):
        values = [value for flag, value in pairwise(command) if flag == "--collection"]
        # Its options are right: only the collection is missing.
        assert values[0] in run("train", *command)
        read += values
    assert read == written


def lmms_eval_commands() -> Iterator[tuple[str, dict[str, Any]]]:
    """Tasks and model arguments, for each ratio of the loop."""
    (block,) = [block.text for block in BLOCKS if "lmms-eval eval" in block.text]
    (ratios,) = re.findall(r"for ratio in ([\d. ]+);", block)
    lines = re.findall(r"--tasks (\S+) .*?--model_args (\S+)", block, re.DOTALL)
    assert len(lines) == block.count("lmms-eval eval") == 6
    for ratio in ratios.split():
        for tasks, arguments in lines:
            pairs = (pair.split("=") for pair in arguments.replace("$ratio", ratio).split(","))
            yield tasks, {key: _number(value) for key, value in pairs}


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def test_lmms_eval_commands_name_arguments_and_mappers_that_exist() -> None:
    models = dict(re.findall(r"^\| `(\S+/\S+)` \| `(\S+)` \|", TEXT, re.MULTILINE))
    assert len(models) == 5
    kept = set()
    for _, given in lmms_eval_commands():
        loading, changes = read_arguments(given)
        assert changes["mapper"] == f"mappers/{models[loading.pretrained]}"
        kept.add(TokenCompressionConfig.from_dict(changes).retention_ratio)
        if loading.max_pixels is not None:
            assert loading.pretrained.startswith("Qwen/")
    assert kept == {1.0, 0.5, 0.25}


@pytest.mark.parametrize(
    ("model", "patch"), [("Qwen2-VL", 14), ("Qwen2.5-VL", 14), ("Qwen3-VL", 16)]
)
def test_pixels_for_1500_visual_tokens(model: str, patch: int) -> None:
    (written,) = re.findall(rf"^\| `Qwen/{model}-\S+` \| \S+ \| ([\d,]+) \|", TEXT, re.MULTILINE)
    pixels = int(written.replace(",", ""))
    processor = Qwen2VLImageProcessor(
        patch_size=patch, size={"shortest_edge": 3136, "longest_edge": pixels}
    )
    for width, height, stated in ((1600, 1200, "1,485"), (1920, 1080, "1,508")):
        inputs = processor(images=Image.new("RGB", (width, height)), return_tensors="pt")
        assert f"{int(inputs['image_grid_thw'].prod()) // 4:,}" == stated
        assert stated in TEXT


def test_the_copy_of_a_checkpoint_shows_images_at_fewer_pixels(folder: Path) -> None:
    copy = folder / "models/qwen2-vl-7b"
    shutil.copytree(resolve_model("tiny-qwen2-vl"), copy, ignore=shutil.ignore_patterns("mapper*"))
    run_python("longest_edge")
    assert AutoProcessor.from_pretrained(copy).image_processor.size["longest_edge"] == 1204224
