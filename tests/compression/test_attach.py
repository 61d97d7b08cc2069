"""Compression changes one model instance and can be undone completely."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import HALF, KEEP_ALL, QUARTER, ModelPair, make_pair
from tiny_models import ONE_IMAGE, RAGGED, make_inputs, tiny_base_model, tiny_config, tiny_model
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from hf_token_compress import (
    TokenCompressionConfig,
    compress,
    register_family,
    supported_families,
    uncompress,
)
from hf_token_compress.compression.mixin import compressed_class
from hf_token_compress.models import ModelFamily
from hf_token_compress.models import registry as family_registry
from hf_token_compress.models.generic import GenericFamily

pytestmark = pytest.mark.core


@pytest.mark.parametrize("make", [tiny_model, tiny_base_model])
def test_uncompress_restores_class_signature_state_and_output(make: Any) -> None:
    model, stock = make(), make()
    state_before = dict(vars(model))
    inputs = make_inputs(RAGGED)
    compress(model, QUARTER)
    compressed = model(**inputs)[0]
    assert uncompress(model) is model
    assert type(model) is type(stock)
    assert inspect.signature(model.forward) == inspect.signature(stock.forward)
    assert vars(model).keys() == state_before.keys()
    expected = stock(**inputs)[0]
    assert torch.equal(model(**inputs)[0], expected)
    assert not torch.equal(compressed, expected)


def test_compress_after_uncompress_works_again(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    expected = pair.compressed(**inputs).logits
    uncompress(pair.compressed)
    compress(pair.compressed, QUARTER)
    assert torch.equal(pair.compressed(**inputs).logits, expected)


def test_the_compressed_model_looks_like_its_stock_class(pair: ModelPair) -> None:
    stock, compressed = pair
    assert isinstance(compressed, Qwen2VLForConditionalGeneration)
    assert type(compressed).__name__ == type(stock).__name__
    assert inspect.signature(compressed.forward) == inspect.signature(stock.forward)
    assert inspect.signature(compressed.generate) == inspect.signature(stock.generate)
    assert inspect.signature(type(compressed).forward) == inspect.signature(type(stock).forward)
    base = tiny_base_model()
    signature = inspect.signature(base.forward)
    assert inspect.signature(compress(base, QUARTER).forward) == signature
    assert compressed.state_dict().keys() == stock.state_dict().keys()
    assert list(dict(compressed.named_modules())) == list(dict(stock.named_modules()))
    assert compressed.can_generate()


def test_compress_returns_the_same_instance_and_replaces_the_setting() -> None:
    model = tiny_model()
    assert compress(model, QUARTER) is model
    inputs = make_inputs([ONE_IMAGE])
    model(**inputs)
    cls = type(model)
    half = TokenCompressionConfig(retention_ratio=0.5, min_visual_tokens=0, scorer="uniform")
    assert compress(model, half.to_dict()) is model
    assert type(model) is cls
    assert model.token_compression.config == half
    model(**inputs)
    assert model.token_compression.last.samples[0].visual_tokens_after == 24


def test_the_state_of_a_model_follows_compress_and_uncompress() -> None:
    model = compress(tiny_model(), QUARTER)
    held, inputs = model.token_compression, make_inputs([ONE_IMAGE])
    with held.record() as totals:
        compress(model, HALF)
        model(**inputs)
    assert (totals.calls, totals.visual_tokens_after) == (1, 24)
    held.update(retention_ratio=0.25)
    assert model(**inputs).compression_report.visual_tokens_after == 12
    uncompress(model)
    with one_sentence(ValueError, "does not belong to a model"):
        held.update(retention_ratio=0.5)


@pytest.mark.parametrize("make", [tiny_model, tiny_base_model])
@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_clones(make: Any, clone: Any) -> None:
    model = compress(make(), QUARTER)
    inputs = make_inputs(RAGGED)
    expected = model(**inputs)[0]
    cloned = clone(model)
    assert type(cloned) is type(model)
    assert torch.equal(cloned(**inputs)[0], expected)
    uncompress(cloned)
    assert torch.equal(cloned(**inputs)[0], make()(**inputs)[0])
    assert torch.equal(model(**inputs)[0], expected)


def test_clones_have_their_own_switch_and_report(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    cloned = copy.deepcopy(pair.compressed)
    with cloned.token_compression.disabled():
        assert pair.compressed(**inputs).logits.shape[1] < inputs["input_ids"].shape[1]
    assert cloned.token_compression.last is None
    assert pair.compressed.token_compression.last is not None


def test_two_models_in_one_process_are_independent() -> None:
    inputs = make_inputs([ONE_IMAGE])
    quarter, half, stock = (tiny_model(seed=seed) for seed in range(3))
    expected = [tiny_model(seed=seed)(**inputs).logits for seed in range(3)]
    compress(quarter, QUARTER)
    compress(half, {"retention_ratio": 0.5, "min_visual_tokens": 0})
    assert torch.equal(stock(**inputs).logits, expected[2])
    quarter(**inputs)
    half(**inputs)
    assert quarter.token_compression.last.samples[0].visual_tokens_after == 12
    assert half.token_compression.last.samples[0].visual_tokens_after == 24
    uncompress(quarter)
    assert torch.equal(quarter(**inputs).logits, expected[0])
    half(**inputs)
    assert half.token_compression.last.samples[0].visual_tokens_after == 24


def test_two_models_that_share_a_config_object_are_independent(tmp_path: Path) -> None:
    config = tiny_config()
    first, second = (Qwen2VLForConditionalGeneration(config).eval() for _ in range(2))
    assert first.config is second.config
    inputs = make_inputs([ONE_IMAGE])
    expected = second(**inputs).logits
    compress(first, QUARTER)
    first.save_pretrained(tmp_path / "first")
    assert torch.equal(second(**inputs).logits, expected)
    second.save_pretrained(tmp_path / "second")
    assert "token_compression" in (tmp_path / "first" / "config.json").read_text()
    assert "token_compression" not in (tmp_path / "second" / "config.json").read_text()


def test_moving_and_casting_a_compressed_model() -> None:
    _, compressed = make_pair()
    inputs = make_inputs([ONE_IMAGE], dtype=torch.bfloat16)
    assert compressed.to(torch.bfloat16)(**inputs).logits.dtype == torch.bfloat16
    assert compressed.token_compression.last.samples[0].visual_tokens_after == 12


class OwnConfig(Qwen2VLConfig):
    model_type = "own_vl"


class OwnModel(Qwen2VLForConditionalGeneration):
    config_class = OwnConfig


class OwnFamily(ModelFamily):
    """A family of a user."""


def test_a_registered_family(
    monkeypatch: pytest.MonkeyPatch, pair: ModelPair, tmp_path: Path
) -> None:
    """A user's family can be compressed and saved after one call."""
    monkeypatch.setattr(family_registry.FAMILIES, "registered", {})
    settings = tiny_config().to_dict()
    del settings["model_type"]
    model = OwnModel(OwnConfig(**settings)).eval()
    model.load_state_dict(pair.stock.state_dict())
    assert type(compressed_class(OwnModel).family) is GenericFamily
    register_family("own_vl", OwnFamily)
    assert "own_vl" in supported_families()
    inputs = make_inputs(RAGGED)
    expected = pair.compressed(**inputs).logits
    assert torch.equal(compress(model, QUARTER)(**inputs).logits, expected)
    model.save_pretrained(tmp_path)
    assert torch.equal(OwnModel.from_pretrained(tmp_path)(**inputs).logits, expected)


def test_the_repr_shows_the_setting() -> None:
    _, compressed = make_pair(KEEP_ALL)
    assert "retention_ratio=1.0" in repr(compressed.token_compression)
    with compressed.token_compression.disabled():
        assert "disabled" in repr(compressed.token_compression)
