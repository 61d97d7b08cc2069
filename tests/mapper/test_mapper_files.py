"""Mappers on disk, and which model they may be put on."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from huggingface_hub import ModelCard
from mappers import IDENTITY, NETWORKS, make_input, make_mapper
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from hf_token_compress import TokenCompressionConfig, compress, load_tiny, tiny
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import (
    MapperConfig,
    MapperNotFoundError,
    MapperSet,
    RelevanceMapper,
    load_mappers,
)

pytestmark = pytest.mark.core


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_mapper().save_pretrained(tmp_path / "mapper")
    return tmp_path / "mapper"


def edit(folder: Path, **settings: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **settings}))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_mapper_comes_back_the_same(network: str, tmp_path: Path) -> None:
    config = {
        "modality": "video",
        "scoring_depth": 2,
        "training": {"samples": 3, "data": {"source": "x"}},
        "metrics": {"kl": 0.5},
        "versions": {"torch": "1"},
    }
    mapper = make_mapper(network, **config)
    mapper.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    again = RelevanceMapper.from_pretrained(tmp_path)
    assert again.config == mapper.config
    assert not again.training
    item = make_input((2, 3, 3))
    assert torch.equal(again([item])[0], mapper([item])[0])


def test_the_card_says_what_the_mapper_is(tmp_path: Path) -> None:
    mapper = make_mapper(training={"samples": 4321, "license": "mit"}, metrics={"kl": 0.25})
    mapper.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "hf_token_compress"
    assert data["base_model"] == IDENTITY.name
    assert data["license"] == "mit"
    assert {"token-compression", "qwen2_vl", "image"} <= set(data["tags"])
    for words in ("| samples | 4321 |", "| kl | 0.25 |", "token_compression=", IDENTITY.name):
        assert words in card.text


def test_a_card_is_rewritten_with_the_mapper(tmp_path: Path) -> None:
    make_mapper(metrics={"kl": 0.9}).save_pretrained(tmp_path)
    make_mapper(metrics={"kl": 0.1}).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| kl | 0.1 |" in text
    assert "| kl | 0.9 |" not in text


@pytest.mark.parametrize("written", [b"# Mine\n", b"", b"caf\xe9", None])
def test_a_card_that_the_user_wrote_or_edited_is_kept(
    written: bytes | None, tmp_path: Path
) -> None:
    make_mapper().save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    text = card.read_bytes().replace(b"## Use", b"## Use it") if written is None else written
    card.write_bytes(text)
    make_mapper(metrics={"kl": 0.1}).save_pretrained(tmp_path)
    assert card.read_bytes() == text


def test_a_folder_may_hold_one_mapper_for_images_and_one_for_videos(tmp_path: Path) -> None:
    image, video = make_mapper(seed=1), make_mapper(seed=2, modality="video")
    MapperSet({"image": image, "video": video}, "both").save_pretrained(tmp_path)
    found = load_mappers(str(tmp_path))
    item = make_input((2, 2, 2))
    for modality, mapper in (("image", image), ("video", video)):
        assert torch.equal(found.for_modality(modality)([item])[0], mapper([item])[0])
    (tmp_path / "video" / "config.json").unlink()
    alone = load_mappers(str(tmp_path))
    with one_sentence(ValueError, str(tmp_path), "video"):
        alone.for_modality("video")


@pytest.mark.parametrize(("outside", "inside"), [("image", "video"), ("video", "image")])
def test_a_mapper_and_a_folder_in_it_are_one_for_each_modality(
    outside: str, inside: str, tmp_path: Path
) -> None:
    first, second = make_mapper(seed=1, modality=outside), make_mapper(seed=2, modality=inside)
    first.save_pretrained(tmp_path)
    second.save_pretrained(tmp_path / inside)
    found = load_mappers(str(tmp_path))
    item = make_input((2, 2, 2))
    for modality, mapper in ((outside, first), (inside, second)):
        assert torch.equal(found.for_modality(modality)([item])[0], mapper([item])[0])


@pytest.mark.parametrize("modality", ["image", "video"])
def test_two_mappers_for_one_modality(modality: str, tmp_path: Path) -> None:
    both = MapperSet({kind: make_mapper(modality=kind) for kind in ("image", "video")}, "both")
    both.save_pretrained(tmp_path)
    make_mapper(modality=modality).save_pretrained(tmp_path)
    with one_sentence(ValueError, str(tmp_path), f"two mappers for {modality}s"):
        load_mappers(str(tmp_path))


def test_two_mappers_are_not_saved_into_a_mapper(folder: Path) -> None:
    both = MapperSet({kind: make_mapper(modality=kind) for kind in ("image", "video")}, "both")
    with one_sentence(ValueError, str(folder), "another folder"):
        both.save_pretrained(folder)
    assert not (folder / "image").exists()


def test_a_mapper_in_the_wrong_place(tmp_path: Path) -> None:
    make_mapper().save_pretrained(tmp_path / "video")
    with one_sentence(ValueError, "images", "video/"):
        load_mappers(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with one_sentence(MapperNotFoundError, name, str(folder)):
        load_mappers(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cut_off_file(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with one_sentence(ValueError, name, "damaged"):
        load_mappers(str(folder))


def test_a_flipped_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with one_sentence(ValueError, "SHA-256"):
        load_mappers(str(folder))


def test_weights_of_another_network(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.popitem()
    save_file(weights, folder / "model.safetensors")
    edit(folder, weights_sha256=None)
    with one_sentence(ValueError, "does not hold the weights"):
        load_mappers(str(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "transformer"}, ("'transformer'", "conv1d, grid")),
        ({"network_options": {"colour": 1}}, ("colour",)),
        ({"modality": "sound"}, ("'sound'",)),
        ({"network_options": {"channels": -1}}, ("channels", "grid", "at least 1", "-1")),
        ({"network_options": []}, ("network_options", "a dict, not list")),
        ({"scoring_depth": "two"}, ("scoring_depth", "a whole number, not str")),
        ({"scoring_depth": -1}, ("scoring_depth", "at least 0", "-1")),
        ({"scoring_depth": 3}, ("scoring_depth", "below the 3 decoder layers")),
        ({"training": "long"}, ("training", "a dict, not str")),
        ({"base_model": {"name": "x"}}, ("base model", "without revision")),
        ({"base_model": {**IDENTITY.to_dict(), "heads": "3"}}, ("heads", "whole number, not str")),
        ({"base_model": {**IDENTITY.to_dict(), "heads": 0}}, ("heads", "at least 1")),
        ({"base_model": {**IDENTITY.to_dict(), "name": None}}, ("name", "string, not NoneType")),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": [1.0]}}, ("fingerprint", "has 1")),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": 1}}, ("fingerprint", "not int")),
        ({"base_model": None}, ("is not a token mapper's",)),
    ],
)
def test_a_config_that_is_no_mappers(
    settings: dict[str, Any], words: tuple[str, ...], folder: Path
) -> None:
    edit(folder, **settings)
    with one_sentence(ValueError, str(folder), *words):
        load_mappers(str(folder))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"input_heads": "max"}, ("input_heads", "separate, mean", "'max'")),
        ({"input_scale": "logit"}, ("input_scale", "raw, share, log_share", "'logit'")),
        ({"activation": "tanh"}, ("activation", "relu, gelu, silu", "'tanh'")),
        ({"kernel_size": 4}, ("kernel_size", "odd, not 4")),
        ({"kernel_size": -1}, ("kernel_size", "at least 1", "-1")),
        ({"channels": [4, 0]}, ("channels", "at least 1", "0")),
        ({"channels": []}, ("channels", "at least one layer")),
        ({"heads": 2}, ("heads",)),
    ],
)
def test_options_that_the_papers_network_does_not_have(
    option: dict[str, Any], words: tuple[str, ...]
) -> None:
    with one_sentence(ValueError, "conv1d", *words):
        make_mapper("conv1d", network_options=option)


@pytest.mark.parametrize(
    ("network", "option", "words"),
    [
        ("conv1d", {"channels": 4}, ("channels", "list of whole numbers, not int")),
        ("conv1d", {"channels": ["wide"]}, ("channels", "whole number, not str")),
        ("conv1d", {"kernel_size": 3.0}, ("kernel_size", "whole number, not float")),
        ("grid", {"channels": [4]}, ("channels", "whole number, not list")),
        ("grid", {"blocks": "two"}, ("blocks", "whole number, not str")),
        ("grid", {"start_from_attention": 1}, ("start_from_attention", "true or false, not int")),
    ],
)
def test_options_of_the_wrong_type(
    network: str, option: dict[str, Any], words: tuple[str, ...]
) -> None:
    with one_sentence(TypeError, network, *words):
        make_mapper(network, network_options=option)


@pytest.mark.parametrize("option", [{"channels": -1}, {"channels": 0}, {"blocks": -1}])
def test_sizes_that_a_grid_cannot_have(option: dict[str, Any]) -> None:
    with one_sentence(ValueError, "grid", *option, "at least", str(*option.values())):
        make_mapper("grid", network_options=option)


def test_settings_of_later_versions_are_ignored(folder: Path) -> None:
    edit(folder, smell="rosemary")
    assert isinstance(load_mappers(str(folder)).for_modality("image"), RelevanceMapper)


def test_the_folder_of_a_model_is_no_mapper(stock_folder: Path) -> None:
    with one_sentence(ValueError, str(stock_folder), "not a token mapper's"):
        compress(tiny_model(), str(stock_folder))


# Which model


def saved_for(model: Any, folder: Path, **changes: Any) -> TokenCompressionConfig:
    identity = replace(identify(model), **changes)
    RelevanceMapper(MapperConfig(identity)).save_pretrained(folder)
    return TokenCompressionConfig(mapper=str(folder), min_visual_tokens=0)


@pytest.mark.parametrize("inside", [".", "..", "model"])
def test_a_model_from_a_folder_goes_by_the_folders_name(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "model"
    (home / "model").mkdir(parents=True)
    monkeypatch.chdir(home / "model" if inside == ".." else home)
    model = tiny_model()
    model.config._name_or_path = inside
    assert identify(model).name == "model"


def test_the_same_model_from_elsewhere_is_taken(tmp_path: Path) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path, name="someone/else", revision="1")
    assert compress(model, setting) is model
    assert compress(model.bfloat16(), setting) is model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 28}, "6 instead of 28"),
        ({"model_type": "llava"}, "'qwen2_vl' instead of 'llava'"),
        ({"hidden_size": 3584}, "48 instead of 3584"),
        ({"layers": 28}, "3 instead of 28"),
    ],
)
def test_a_mapper_of_another_model_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path, name="the/other", **changes)
    with one_sentence(ValueError, "'the/other'", words, "scorer='attention'"):
        compress(model, setting)
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert not hasattr(model, "token_compression")


def test_a_model_with_the_same_sizes_and_other_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path)
    layer = model.model.language_model.layers[0]
    with torch.no_grad():
        layer.self_attn.q_proj.weight.add_(0.02 * torch.randn(layer.self_attn.q_proj.weight.shape))
    compress(model, setting)  # a light fine-tune
    with torch.no_grad():
        layer.self_attn.q_proj.weight.normal_(std=0.2)
    with one_sentence(ValueError, "other weights in layer 0"):
        compress(model, setting)


# Of the tiny models


@pytest.mark.parametrize("network", ["grid", "conv1d"])
def test_the_tiny_models_have_mappers(network: str) -> None:
    name = "tiny-qwen2-vl" if network == "grid" else f"tiny-qwen2-vl/{network}"
    files = Path(tiny.resolve_mapper(name)).iterdir()
    assert sum(path.stat().st_size for path in files) < 1_000_000
    model, _ = load_tiny("qwen2-vl", token_compression=name)
    mapper = model.token_compression.scorer.mappers.for_modality("image")
    assert mapper.config.network == network
    assert mapper.config.base_model.name == "tiny-qwen2-vl"


@pytest.mark.parametrize("model_name", ["llava-onevision", "qwen2-vl-video"])
def test_the_tiny_models_for_videos_have_mappers_of_both_kinds(model_name: str) -> None:
    name = f"tiny-{model_name}"
    model, _ = load_tiny(model_name, token_compression=name)
    for modality in ("image", "video"):
        files = (Path(tiny.resolve_mapper(name)) / modality).iterdir()
        assert sum(path.stat().st_size for path in files) < 1_000_000
        config = model.token_compression.scorer.mappers.for_modality(modality).config
        assert (config.network, config.modality) == ("grid", modality)
        assert config.base_model.name == name


def test_a_tiny_model_may_have_mappers_for_images_and_for_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "_HOME", tmp_path)
    monkeypatch.chdir(tmp_path)
    for modality in ("image", "video"):
        folder = tmp_path / "llava_onevision" / "mappers" / "grid" / modality
        make_mapper("grid", modality=modality).save_pretrained(folder)
    make_mapper("conv1d").save_pretrained(tmp_path / "llava_onevision" / "mappers" / "conv1d")
    name = "tiny-llava-onevision"
    assert tiny.available_mappers() == (name, f"{name}/conv1d")
    assert tiny.own_mapper(name) == name
    assert set(load_mappers(name).mappers) == {"image", "video"}
    alone = load_mappers(f"{name}/conv1d")
    with one_sentence(ValueError, f"'{name}/conv1d'", "trained for images", "has videos"):
        alone.for_modality("video")


def test_a_tiny_mapper_that_does_not_exist() -> None:
    with one_sentence(ValueError, "'tiny-qwen2-vl/conv9d'", "tiny-qwen2-vl/conv1d"):
        load_mappers("tiny-qwen2-vl/conv9d")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_mapper_outlives_a_change_of_defaults(network: str, tmp_path: Path) -> None:
    mapper = make_mapper(network, network_options={})
    mapper.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["network_options"]
    parameters = inspect.signature(type(mapper.network)).parameters
    assert set(saved) == set(parameters) - {"heads"}
