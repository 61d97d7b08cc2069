"""The commands collect, train and push, and evaluate with mappers; calibrating in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from errors import one_sentence
from mappers import make_mapper
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.cli import app
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.mixin import TokenCompressionMixin
from hf_token_compress.data.chat import conversation
from hf_token_compress.evaluation import measure_retention, scene_samples
from hf_token_compress.mapper import (
    MapperConfig,
    MapperNotFoundError,
    RelevanceMapper,
    load_mappers,
)
from hf_token_compress.training.calibration import as_sample
from hf_token_compress.training.train import TrainOptions

MODEL = "tiny-qwen2-vl"


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def collect_scenes(count: int, output: Path, *more: Any) -> Result:
    return call(
        *("collect", "--model", MODEL, "--scenes", count, "--output", output, *more),
        *("--rule", "edges_absolute", "--targets", "sum", "--max-new-tokens", 8),
    )


def assert_told(outcome: Result, *words: str) -> None:
    assert outcome.exit_code in (1, 2)
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected and trained by the commands."""
    folder = tmp_path_factory.mktemp("commands")
    collected = collect_scenes(14, folder / "shards")
    assert collected.exit_code == 0, collected.stderr
    assert "samples in" in collected.stdout
    trained = call(
        *("train", "--collection", folder / "shards", "--output", folder / "mapper"),
        *("--epochs", 2, "--train-batch-size", 4, "--network-option", "channels=8"),
    )
    assert trained.exit_code == 0, trained.stderr
    assert "rank correlation" in trained.stdout
    return folder


def test_the_commands_make_a_mapper_that_the_model_takes(folders: Path) -> None:
    names = {path.name for path in (folders / "mapper").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "loss.png", "recall.png"} <= names
    config = load_mappers(str(folders / "mapper")).for_modality("image").config
    assert config.base_model.name == MODEL
    assert config.network_options["channels"] == 8
    model, _ = load_tiny("qwen2-vl", token_compression=str(folders / "mapper"))
    assert model.token_compression.config.mapper == str(folders / "mapper")


def test_several_collections_train_one_mapper(folders: Path, tmp_path: Path) -> None:
    collected = collect_scenes(7, tmp_path / "more", "--seed", 900)
    assert collected.exit_code == 0, collected.stderr
    train = ("train", "--collection", folders / "shards", "--epochs", 1, "--train-batch-size", 4)
    trained = call(*train, "--collection", tmp_path / "more", "--output", tmp_path / "mapper")
    assert trained.exit_code == 0, trained.stderr
    training = load_mappers(str(tmp_path / "mapper")).for_modality("image").config.training
    assert [data["seed"] for data in training["data"]] == [0, 900]
    twice = call(*train, "--collection", folders / "shards", "--output", tmp_path / "twice")
    assert_told(twice, "named twice")


def test_a_second_call_has_nothing_to_do(folders: Path) -> None:
    shards = sorted((folders / "shards").glob("shard-*"))
    before = [path.stat().st_mtime_ns for path in shards]
    again = collect_scenes(14, folders / "shards")
    assert again.exit_code == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in shards] == before


def test_evaluate_writes_rows_by_scorer_ratio_and_kind(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    outcome = call(
        *("evaluate", "--model", MODEL, "--scorer", f"mapper,random,mapper:{folders / 'mapper'}"),
        *("--retention-ratio", "0.5,0.25", "--kind", "place,colour", "--per-kind", 8),
        *("--seed", 4000, "--output", file),
    )
    assert outcome.exit_code == 0, outcome.stderr
    table = json.loads(file.read_text())
    assert (table["model"], table["mapper"], table["seed"]) == (MODEL, MODEL, 4000)
    rows = {(row["scorer"], row["retention_ratio"]): row for row in table["rows"]}
    names = ("mapper", "random", f"mapper:{folders / 'mapper'}")
    assert list(rows) == [
        ("full", 1.0),
        *((name, ratio) for name in names for ratio in (0.5, 0.25)),
    ]
    full = rows["full", 1.0]
    for row in rows.values():
        assert set(row["kinds"]) == {"place", "colour"}
        assert row["asked"] == 16
        mean = sum(kind["accuracy"] for kind in row["kinds"].values()) / 2
        assert row["accuracy"] == pytest.approx(mean)
        assert row["relative"] == pytest.approx(row["accuracy"] / full["accuracy"])
        assert row["kept_share"] == pytest.approx(row["retention_ratio"])
    # The shipped mapper against chance, at a quarter: the thresholds leave room for 16 questions.
    assert rows["mapper", 0.25]["relative"] >= 0.8
    assert rows["mapper", 0.25]["accuracy"] > rows["random", 0.25]["accuracy"]


def test_clips_make_a_mapper_for_videos_that_is_tried_on_longer_ones(tmp_path: Path) -> None:
    model = "tiny-llava-onevision"
    collected = call(
        *("collect", "--model", model, "--clips", 12, "--clip-frames", 2, "--kind", "colour"),
        *("--targets", "sum", "--max-new-tokens", 4, "--output", tmp_path / "shards"),
    )
    assert collected.exit_code == 0, collected.stderr
    trained = call(
        *("train", "--collection", tmp_path / "shards", "--output", tmp_path / "mapper"),
        *("--epochs", 1, "--train-batch-size", 4, "--network-option", "channels=8"),
    )
    assert trained.exit_code == 0, trained.stderr
    asked = ("--scorer", f"mapper:{tmp_path / 'mapper'}", "--per-kind", 2, "--kind", "colour")
    outcome = call(
        *("evaluate", "--model", model, *asked, "--retention-ratio", 0.25),
        *("--clip-frames", 2, "--frames-per-scene", 2, "--json"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    row = json.loads(outcome.stdout)["rows"][-1]
    assert row["kept_share"] == pytest.approx(16 / (4 * 16 + 1))
    refused = call("evaluate", "--model", model, *asked)
    assert_told(refused, "trained for videos", "the prompt has images")


def test_evaluate_prints_json(folders: Path) -> None:
    outcome = call(
        *("evaluate", "--scorer", "random", "--scorer", "uniform", "--retention-ratio", 0.5),
        *("--kind", "place", "--per-kind", 1, "--json"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    scorers = [row["scorer"] for row in json.loads(outcome.stdout)["rows"]]
    assert scorers == ["full", "random", "uniform"]


def test_a_mapper_that_is_named_is_among_the_default_scorers() -> None:
    outcome = call(
        *("evaluate", "--mapper", MODEL, "--retention-ratio", 0.5),
        *("--kind", "place", "--per-kind", 1, "--json"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    table = json.loads(outcome.stdout)
    scorers = [row["scorer"] for row in table["rows"]]
    assert scorers == ["full", "truth", "mapper", "gated_fusion", "attention", "uniform", "random"]
    assert table["mapper"] == MODEL


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["collect", "--model", MODEL, "--output", "x"], ("--data", "--scenes", "--clips")),
        (["evaluate", "--frames-per-scene", 2], ("--frames-per-scene", "give --clip-frames")),
        (["evaluate", "--markdown", "--json"], ("--markdown",)),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 3, "--data", "y"],
            ("--data",),
        ),
        (["collect", "--model", MODEL, "--output", "x", "--data", "none"], ("no data file",)),
        (
            ["collect", "--model", MODEL, "--output", "x", "--data", "y", "--kind", "place"],
            ("--kind",),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 3, "--split", "test"],
            ("--split", "--dataset"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--data", "y", "--subset", "a"],
            ("--subset", "--dataset"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 3, "--modality", "sound"],
            ("'sound'",),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 3, "--metric", "nearly"],
            ("'nearly'",),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--kind", "place,nope"],
            ("no kind of question 'nope'", "place, colour"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--clips", 4, "--kind", "where"],
            ("no kind of question 'where'", "during"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--rule", "nope"],
            ("no rule named 'nope'", "edges_absolute"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--rule-option", "a=1"],
            ("has no option", "a"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--targets", "nope"],
            ("targets",),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--scoring-depth", 99],
            ("scoring_depth", "99"),
        ),
        (
            ["collect", "--model", MODEL, "--output", "x", "--scenes", 4, "--rows", 9],
            ("rows", "1 to 8", "9 x 4"),
        ),
        (["train", "--collection", "none", "--output", "x"], ("no collection.json",)),
        (
            ["train", "--collection", "none", "--output", "x", "--validation-fraction", 1],
            ("validation_fraction",),
        ),
        (["push", "--mapper", "none", "--repo", "a/b"], ("no folder 'none'",)),
        (["evaluate", "--scorer", "mapper,magic"], ("'magic'", "mapper")),
        (["evaluate", "--retention-ratio", "0.5,few"], ("'few'",)),
        (["evaluate", "--kind", "place,smell"], ("'smell'", "place")),
        (
            ["evaluate", "--mapper", MODEL, "--scorer", "random,mapper:x"],
            (f"--mapper {MODEL}", "--scorer"),
        ),
        (
            ["evaluate", "--rows", 1, "--columns", 1, "--kind", "colour,relation"],
            ("1 x 1", "'relation'"),
        ),
        (["evaluate", "--rows", 8, "--columns", 8, "--per-kind", 1], ("8 x 8", "'lettered'")),
        (["evaluate", "--output", "none/table.json"], ("no folder",)),
        (["run", "--scorer", "mapper"], ("collect", "train", "leave scorer out")),
        (["run", "--mapper", "no-such-folder"], ("'no-such-folder'",)),
    ],
)
def test_what_the_user_can_put_right_is_told_in_one_sentence(
    arguments: list[Any],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "run":
        from hf_token_compress.data.scenes import make_scene

        make_scene(0).image.save("board.png")
        arguments = [*arguments, "--model", MODEL, "--image", "board.png", "--prompt", "x"]
    assert_told(call(*arguments), *words)


def test_no_question_is_asked_before_all_mappers_are_found_to_fit(tmp_path: Path) -> None:
    model, processor = load_tiny("qwen2-vl")
    make_mapper().save_pretrained(tmp_path / "other")
    video = RelevanceMapper(MapperConfig(identify(model), modality="video"))
    video.save_pretrained(tmp_path / "video")
    cases: list[tuple[str, type[Exception], str]] = [
        ("none", MapperNotFoundError, "none"),
        ("other", ValueError, "someone/some-model"),
        ("video", ValueError, "trained for videos"),
    ]
    for name, kind, words in cases:
        asked: list[int] = []
        with one_sentence(kind, words):
            measure_retention(
                *(model, processor, scene_samples(["place"], 1)),
                scorers=["random", f"mapper:{tmp_path / name}"],
                retention_ratios=[0.5],
                after_batch=asked.append,
            )
        assert asked == []
        assert not isinstance(model, TokenCompressionMixin)


def test_the_mapper_of_another_model_is_told_in_one_sentence(tmp_path: Path) -> None:
    make_mapper().save_pretrained(tmp_path)
    outcome = call("evaluate", "--scorer", "mapper", "--mapper", tmp_path, "--per-kind", 1)
    assert_told(outcome, "someone/some-model")
    assert outcome.exit_code == 1


# Calibrating


def prompts(count: int) -> list[tuple[Any, str, str]]:
    kinds = ["colour", "place", "where"]
    samples = scene_samples(kinds, -(-count // 3), seed=60_000, split="mapper")
    return [(sample.image, sample.question, sample.answer) for sample in samples[:count]]


def test_calibrating_scores_with_the_users_own_mapper(tmp_path: Path) -> None:
    model, processor = load_tiny("qwen2-vl", token_compression={"retention_ratio": 0.25})
    options = TrainOptions(
        network_options={"channels": 8, "blocks": 1}, epochs=2, validation_fraction=0.2
    )
    mapper = model.token_compression.calibrate(prompts(12), processor, train_options=options)
    assert mapper.config.training["samples"] >= 10
    scorer = model.token_compression.scorer
    assert scorer.mappers.for_modality("image") is mapper

    assert "mapper='<in memory>'" in repr(model.token_compression)
    with pytest.warns(UserWarning, match="in memory only"):
        model.save_pretrained(tmp_path / "unsaved")
    saved = json.loads((tmp_path / "unsaved" / "config.json").read_text())["token_compression"]
    assert TokenCompressionConfig.from_dict(saved) == TokenCompressionConfig(retention_ratio=0.25)

    mapper.save_pretrained(tmp_path / "mapper")
    with pytest.warns(UserWarning, match="other machines"):
        model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model", dtype="float32")
    assert again.token_compression.config.mapper == str(tmp_path / "mapper")
    assert again.token_compression.config.retention_ratio == 0.25
    for name, value in mapper.state_dict().items():
        found = again.token_compression.scorer.mappers.for_modality("image")
        assert torch.equal(found.state_dict()[name], value)


@pytest.mark.parametrize("sample", ["x", ("only one",), (1, 2, 3, 4), (None, 5)])
def test_what_is_no_sample(sample: Any) -> None:
    with one_sentence(TypeError, "calibrate with"):
        as_sample(sample)


def test_a_sample_may_name_its_images_by_their_paths() -> None:
    sample = as_sample(([Path("a.png"), "b.png"], "What is red?"))
    (turn,) = conversation(sample)
    assert [part.get("image") for part in turn["content"]] == ["a.png", "b.png", None]


def test_a_setting_that_is_on_no_model_cannot_calibrate() -> None:
    model, processor = load_tiny("qwen2-vl")
    compression = compress(model, {}).token_compression
    del model
    with one_sentence(ValueError, "model"):
        compression.calibrate(prompts(3), processor)
