"""Scores under autocast and other default dtypes are those without, for the same features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, RAGGED, make_inputs, tiny_model
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.inputs import read_layout
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.mapper import MapperConfig, RelevanceMapper
from hf_token_compress.relevance import relevance
from hf_token_compress.scorers.mapper import MapperScorer

pytestmark = pytest.mark.core

HALVES = [torch.bfloat16, torch.float16]
SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"scorer": "attention"},
    "deeper": {"scorer": "attention", "scorer_options": {"scoring_depth": 2}},
    "conv1d": {"scorer": "uniform"},
    "grid": {"scorer": "uniform"},
    "gated_fusion": {"scorer": "gated_fusion"},
    "relevance": {"scorer": "relevance", "scorer_options": {"max_new_tokens": 2}},
    "uniform": {"scorer": "uniform"},
    "random": {"scorer": "random"},
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)
each_family = pytest.mark.parametrize("family", FAMILIES)


def scoring(family: str, setting: str) -> Any:
    model = tiny_model(family=family)
    compress(model, {"retention_ratio": 0.25, "min_visual_tokens": 0, **SETTINGS[setting]})
    if setting in ("conv1d", "grid"):
        torch.manual_seed(0)
        mapper = RelevanceMapper(MapperConfig(identify(model), network=setting)).eval()
        model.token_compression.scorer = MapperScorer(mapper)
    return model


def with_features(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The same prompts with the images encoded beforehand."""
    with torch.no_grad():
        encoded = read_layout(model, model.family, inputs).encoded
    outputs = {
        modality: BaseModelOutputWithPooling(pooler_output=list(visuals.features))
        for modality, visuals in encoded.items()
    }
    rest = {name: value for name, value in inputs.items() if "pixel_values" not in name}
    return {**rest, "mm_encoder_outputs": outputs}


def scores_of(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        prepare_inputs(model, **inputs)
    found = [sample.scores for sample in model.token_compression.last.samples]
    return torch.cat([scores for scores in found if scores is not None])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@each_setting
@each_family
def test_autocast(family: str, setting: str) -> None:
    model = scoring(family, setting)
    inputs = with_features(model, make_inputs(RAGGED, family=family))
    expected = scores_of(model, inputs)
    for dtype in HALVES:
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(scores_of(model, inputs), expected)
            assert torch.is_autocast_enabled("cpu")


@each_setting
@each_family
def test_default_dtype(family: str, setting: str) -> None:
    model = scoring(family, setting)
    inputs = with_features(model, make_inputs(RAGGED, family=family))
    expected = scores_of(model, inputs)
    for dtype in (*HALVES, torch.float64):
        with default_dtype(dtype):
            assert torch.equal(scores_of(model, inputs), expected)


@pytest.mark.parametrize("dtype", HALVES)
@each_family
def test_the_whole_call_under_autocast(family: str, dtype: torch.dtype) -> None:
    """The vision part runs in half precision, as in the stock model."""
    inputs = make_inputs(RAGGED, family=family)
    for setting in ("attention", "grid", "relevance"):
        model = scoring(family, setting)
        with torch.autocast("cpu", dtype=dtype), torch.no_grad():
            prepared = prepare_inputs(model, **inputs)
            actual = model(**inputs).logits
            expected = super(type(model), model).forward(**prepared).logits
            assert torch.equal(actual[:, -1], expected[:, -1])
            model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize("dtype", HALVES)
def test_compress_under_autocast(dtype: torch.dtype) -> None:
    """What is found out about layer 0, and the identity of the model."""
    model = tiny_model()
    expected = identify(model)
    with torch.autocast("cpu", dtype=dtype):
        assert identify(model) == expected
        compress(model, {"retention_ratio": 0.25})
    assert model.token_compression.fast_path is not None


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_a_mapper_is_float32_whatever_the_default_dtype(dtype: torch.dtype, tmp_path: Any) -> None:
    model = tiny_model()
    expected = identify(model)
    with default_dtype(dtype):
        assert identify(model) == expected
        compress(model, {"retention_ratio": 0.25})
        assert model.token_compression.fast_path is not None
        mapper = RelevanceMapper(MapperConfig(identify(model)))
        mapper.save_pretrained(tmp_path)
        loaded = RelevanceMapper.from_pretrained(tmp_path)
    for own in (mapper, loaded):
        assert {weight.dtype for weight in own.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", HALVES)
def test_what_users_call_themselves(dtype: torch.dtype) -> None:
    """`read_prompt` and `relevance`, which collecting uses too."""
    model = tiny_model()
    inputs = with_features(compress(tiny_model(), {}), make_inputs([RAGGED[0]]))
    answers = [torch.tensor([5, 6])]
    prompt, layer = read_prompt(model, inputs)
    explained = relevance(model, inputs, answer_ids=answers).samples[0].scores
    with torch.autocast("cpu", dtype=dtype):
        own_prompt, own_layer = read_prompt(model, inputs)
        own = relevance(model, inputs, answer_ids=answers).samples[0].scores
        assert torch.equal(own_prompt.inputs_embeds, prompt.inputs_embeds)
    assert torch.equal(own_layer.query, layer.query)
    assert torch.equal(own_layer.key, layer.key)
    assert torch.equal(own, explained)
