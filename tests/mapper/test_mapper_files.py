"""Mappers on disk, and the model that a mapper fits."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
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
def test_a_saved_mapper_loads_unchanged(network: str, tmp_path: Path) -> None:
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
    assert again.source == str(tmp_path.resolve())
    for (name, weight), (_, loaded) in zip(
        mapper.named_parameters(), again.named_parameters(), strict=True
    ):
        assert loaded.device.type == "cpu", name
        assert loaded.requires_grad == weight.requires_grad, name
        assert torch.equal(loaded, weight), name
    item = make_input((2, 3, 3))
    assert torch.equal(again([item])[0], mapper([item])[0])


def test_the_card_describes_the_mapper(tmp_path: Path) -> None:
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
    assert "arxiv.org/abs/2506.01097" in card.text


def test_saving_again_replaces_a_generated_card(tmp_path: Path) -> None:
    make_mapper(metrics={"kl": 0.9}).save_pretrained(tmp_path)
    make_mapper(metrics={"kl": 0.1}).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| kl | 0.1 |" in text
    assert "| kl | 0.9 |" not in text


@pytest.mark.parametrize("edited", [False, True])
def test_saving_again_replaces_a_card_of_an_earlier_version(edited: bool, tmp_path: Path) -> None:
    text = "# Token mapper\n\nMade with hf_token_compress 0.1.0.\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    card = tmp_path / "README.md"
    earlier = f"{'My ' if edited else ''}{text}<!-- As hf_token_compress wrote it: {digest} -->\n"
    card.write_text(earlier)
    make_mapper().save_pretrained(tmp_path)
    assert (card.read_text() == earlier) is edited


@pytest.mark.parametrize("content", [b"# Mine\n", b"", b"caf\xe9", None])
def test_saving_again_keeps_a_card_without_the_mark(content: bytes | None, tmp_path: Path) -> None:
    make_mapper().save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    if content is None:
        lines = card.read_bytes().splitlines(keepends=True)
        content = b"".join(line for line in lines if not line.startswith(b"<!-- "))
    card.write_bytes(content)
    make_mapper(metrics={"kl": 0.1}).save_pretrained(tmp_path)
    assert card.read_bytes() == content


def test_a_folder_with_a_mapper_for_images_and_one_for_videos(tmp_path: Path) -> None:
    image, video = make_mapper(seed=1), make_mapper(seed=2, modality="video")
    MapperSet({"image": image, "video": video}, "both").save_pretrained(tmp_path)
    found = load_mappers(str(tmp_path))
    item = make_input((2, 2, 2))
    for modality, mapper in (("image", image), ("video", video)):
        assert torch.equal(found.for_modality(modality)([item])[0], mapper([item])[0])
    (tmp_path / "video" / "config.json").unlink()
    alone = load_mappers(str(tmp_path))
    with one_sentence(ValueError, "video"):
        alone.for_modality("video")


@pytest.mark.parametrize(("outside", "inside"), [("image", "video"), ("video", "image")])
def test_a_mapper_may_hold_the_other_modality_in_a_folder(
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
def test_two_mappers_for_one_modality_are_refused(modality: str, tmp_path: Path) -> None:
    both = MapperSet({kind: make_mapper(modality=kind) for kind in ("image", "video")}, "both")
    both.save_pretrained(tmp_path)
    make_mapper(modality=modality).save_pretrained(tmp_path)
    with one_sentence(ValueError, f"two mappers for {modality}s"):
        load_mappers(str(tmp_path))


def test_two_mappers_are_not_saved_into_the_folder_of_one(folder: Path) -> None:
    both = MapperSet({kind: make_mapper(modality=kind) for kind in ("image", "video")}, "both")
    with one_sentence(ValueError, str(folder)):
        both.save_pretrained(folder)
    assert not (folder / "image").exists()


def test_a_mapper_in_the_folder_of_the_other_modality(tmp_path: Path) -> None:
    make_mapper().save_pretrained(tmp_path / "video")
    with one_sentence(ValueError, "video/"):
        load_mappers(str(tmp_path))


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff"])
def test_a_config_that_is_not_a_json_object(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with one_sentence(ValueError, "config.json"):
        load_mappers(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with one_sentence(MapperNotFoundError, name):
        load_mappers(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_file(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with one_sentence(ValueError, name):
        load_mappers(str(folder))


def test_a_flipped_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with one_sentence(ValueError, "SHA-256"):
        load_mappers(str(folder))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_mapper_from_before_there_were_other_inputs_reads_attention(
    network: str, tmp_path: Path
) -> None:
    mapper = make_mapper(network)
    mapper.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings.pop("inputs") == ["attention"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    again = RelevanceMapper.from_pretrained(tmp_path)
    assert again.config == mapper.config
    item = make_input((1, 3, 3))
    assert torch.equal(again([item])[0], mapper([item])[0])
    assert torch.equal(again([replace(item, text=None, embedding=None)])[0], mapper([item])[0])


def test_inputs_come_in_one_order_and_only_known_ones() -> None:
    mapper = make_mapper(inputs=["embedding", "attention"])
    assert mapper.config.inputs == ("attention", "embedding")
    for inputs in (["sound"], [], "text", [3]):
        with one_sentence(ValueError, "inputs of a mapper", "'embedding'"):
            make_mapper(inputs=inputs)


def test_weights_for_other_inputs(folder: Path) -> None:
    edit(folder, inputs=["attention", "text"])
    with one_sentence(ValueError, "weights"):
        load_mappers(str(folder))
    edit(folder, inputs="text")
    with one_sentence(ValueError, "inputs"):
        load_mappers(str(folder))


def test_weights_of_another_network(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.popitem()
    save_file(weights, folder / "model.safetensors")
    edit(folder, weights_sha256=None)
    with one_sentence(ValueError, "weights"):
        load_mappers(str(folder))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(value: float, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = value
    save_file(weights, folder / "model.safetensors")
    edit(folder, weights_sha256=None)
    with one_sentence(ValueError, str(folder), "NaN or infinite", name):
        load_mappers(str(folder))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_weights_that_are_not_numbers_of_a_network(dtype: torch.dtype, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[next(iter(weights))] = next(iter(weights.values())).to(dtype)
    save_file(weights, folder / "model.safetensors")
    edit(folder, weights_sha256=None)
    with one_sentence(ValueError, str(folder), "floating-point"):
        load_mappers(str(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_load_in_float32(dtype: torch.dtype, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: v.to(dtype) for k, v in weights.items()}, folder / "model.safetensors")
    edit(folder, weights_sha256=None)
    mapper = load_mappers(str(folder)).for_modality("image")
    for name, value in mapper.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name].to(dtype).float()), name


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"network": "transformer"}, "transformer"),
        ({"network_options": {"colour": 1}}, "colour"),
        ({"network_options": {"channels": -1}}, "channels"),
        ({"network_options": []}, "network_options"),
        ({"modality": "sound"}, "sound"),
        ({"scoring_depth": "two"}, "scoring_depth"),
        ({"scoring_depth": True}, "scoring_depth"),
        ({"scoring_depth": -1}, "scoring_depth"),
        ({"scoring_depth": IDENTITY.layers}, "scoring_depth"),
        ({"network_options": {"channels": 4096}}, "weights"),
        ({"network_options": {"channels": 4097}}, "channels"),
        ({"network_options": {"channels": 2**62}}, "channels"),
        ({"network_options": {"blocks": 1_000_000}}, "blocks"),
        ({"network": "conv1d", "network_options": {"channels": [4] * 100_000}}, "channels"),
        ({"network": "conv1d", "network_options": {"channels": [4, 5000]}}, "channels"),
        ({"training": "long"}, "training"),
        ({"base_model": None}, "base_model"),
        ({"base_model": {"name": "x"}}, "no model_type"),
        ({"base_model": {**IDENTITY.to_dict(), "heads": "3"}}, "heads"),
        ({"base_model": {**IDENTITY.to_dict(), "heads": -6}}, "heads"),
        ({"base_model": {**IDENTITY.to_dict(), "layers": 0}}, "layers"),
        ({"base_model": {**IDENTITY.to_dict(), "hidden_size": True}}, "hidden_size"),
        ({"base_model": {**IDENTITY.to_dict(), "heads": 10**400}}, "used"),
        ({"base_model": {**IDENTITY.to_dict(), "heads": -(10**400)}}, "used"),
        ({"base_model": {**IDENTITY.to_dict(), "heads": 2}}, "weights"),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": ["one"]}}, "one"),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": [math.nan] * 32}}, "fingerprint"),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": ["nan"] * 32}}, "fingerprint"),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": [math.inf] * 32}}, "fingerprint"),
        ({"base_model": {**IDENTITY.to_dict(), "fingerprint": [9.0] * 32}}, "fingerprint"),
    ],
)
def test_a_config_with_a_wrong_value(settings: dict[str, Any], word: str, folder: Path) -> None:
    edit(folder, **settings)
    with one_sentence(ValueError, str(folder), word):
        load_mappers(str(folder))


@pytest.mark.parametrize(
    ("network", "option", "value", "kind"),
    [
        ("conv1d", "input_heads", "max", ValueError),
        ("conv1d", "input_scale", "logit", ValueError),
        ("conv1d", "activation", "tanh", ValueError),
        ("conv1d", "kernel_size", 4, ValueError),
        ("conv1d", "kernel_size", -1, ValueError),
        ("conv1d", "kernel_size", 3.0, TypeError),
        ("conv1d", "channels", [4, 0], ValueError),
        ("conv1d", "channels", [], ValueError),
        ("conv1d", "channels", ["wide"], TypeError),
        ("conv1d", "channels", 4, TypeError),
        ("conv1d", "channels", "48", TypeError),
        ("conv1d", "heads", 2, ValueError),
        ("grid", "channels", -1, ValueError),
        ("grid", "channels", 0, ValueError),
        ("grid", "channels", [4], TypeError),
        ("grid", "blocks", -1, ValueError),
        ("grid", "blocks", "two", TypeError),
        ("grid", "start_from_attention", 1, TypeError),
    ],
)
def test_a_wrong_network_option(
    network: str, option: str, value: object, kind: type[Exception]
) -> None:
    with one_sentence(kind, option):
        make_mapper(network, network_options={option: value})


def test_settings_of_later_versions_are_ignored(folder: Path) -> None:
    edit(folder, smell="rosemary")
    assert isinstance(load_mappers(str(folder)).for_modality("image"), RelevanceMapper)


def test_the_folder_of_a_model_is_not_a_mapper(stock_folder: Path) -> None:
    with one_sentence(ValueError, str(stock_folder)):
        compress(tiny_model(), str(stock_folder))


# The model of a mapper


def saved_for(model: Any, folder: Path, **changes: Any) -> TokenCompressionConfig:
    identity = replace(identify(model), **changes)
    RelevanceMapper(MapperConfig(identity)).save_pretrained(folder)
    return TokenCompressionConfig(mapper=str(folder), min_visual_tokens=0)


@pytest.mark.parametrize("inside", [".", "..", "model"])
def test_a_model_from_a_folder_is_named_after_the_folder(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "model"
    (home / "model").mkdir(parents=True)
    monkeypatch.chdir(home / "model" if inside == ".." else home)
    model = tiny_model()
    model.config._name_or_path = inside
    assert identify(model).name == "model"


def test_a_copy_of_the_model_is_accepted(tmp_path: Path) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path, name="someone/else", revision="1")
    assert compress(model, setting) is model
    assert compress(model.bfloat16(), setting) is model


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 28},
        {"model_type": "llava"},
        {"hidden_size": 3584},
        {"layers": 28},
        {"fingerprint": (1.0,) + (0.0,) * 31},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_mapper_of_another_model_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path, name="the/other", **changes)
    with one_sentence(ValueError, "'the/other'"):
        compress(model, setting)
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert not hasattr(model, "token_compression")


def test_a_fingerprint_of_another_length_is_another_model() -> None:
    short = replace(IDENTITY, fingerprint=IDENTITY.fingerprint[:1])
    assert "fingerprint" in str(IDENTITY.difference(short))
    assert IDENTITY.difference(replace(IDENTITY, fingerprint=())) is None


def test_a_fingerprint_of_nan_is_another_model() -> None:
    nan = replace(IDENTITY, fingerprint=(math.nan,) * 32)
    assert IDENTITY.difference(nan) is not None
    assert nan.difference(IDENTITY) is not None


def test_a_model_of_the_same_sizes_with_other_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    setting = saved_for(model, tmp_path)
    layer = model.model.language_model.layers[0]
    with torch.no_grad():
        layer.self_attn.q_proj.weight.add_(0.02 * torch.randn(layer.self_attn.q_proj.weight.shape))
    compress(model, setting)  # a light fine-tune
    with torch.no_grad():
        layer.self_attn.q_proj.weight.normal_(std=0.2)
    with one_sentence(ValueError, "layer 0"):
        compress(model, setting)


# Mappers of the tiny models


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
def test_the_tiny_video_models_have_mappers_for_both_modalities(model_name: str) -> None:
    name = f"tiny-{model_name}"
    model, _ = load_tiny(model_name, token_compression=name)
    for modality in ("image", "video"):
        files = (Path(tiny.resolve_mapper(name)) / modality).iterdir()
        assert sum(path.stat().st_size for path in files) < 1_000_000
        config = model.token_compression.scorer.mappers.for_modality(modality).config
        assert (config.network, config.modality) == ("grid", modality)
        assert config.base_model.name == name


def test_a_tiny_model_with_mappers_for_both_modalities(
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
    with one_sentence(ValueError, "videos"):
        alone.for_modality("video")


def test_a_tiny_mapper_that_does_not_exist() -> None:
    with one_sentence(ValueError, "conv9d"):
        load_mappers("tiny-qwen2-vl/conv9d")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_mapper_does_not_depend_on_defaults(network: str, tmp_path: Path) -> None:
    mapper = make_mapper(network, network_options={})
    mapper.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["network_options"]
    parameters = inspect.signature(type(mapper.network)).parameters
    assert set(saved) == set(parameters) - {"heads", "inputs"}
