"""The attention scorer keeps the tokens that the attention maps of the stock model choose."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager_attention import assert_scores_and_tokens, eager_maps, eager_scores
from matrix import each_attention, full_only
from tiny_decoders import decoder_model
from tiny_models import (
    FAMILIES,
    HIDDEN,
    make_inputs,
    tiny_base_model,
    tiny_family,
    tiny_model,
)
from torch import Tensor, nn

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt

pytestmark = pytest.mark.core

# Longer than the instruction, so that it reaches the last visual tokens, and shorter than a prompt.
WINDOW = 40

TEXT_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-dynamic-rope": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
            "max_position_embeddings": 32,
        },
    ),
    "cohere": ("cohere", {}),
    "cohere2-sliding": (
        "cohere2",
        {"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 3},
    ),
    "cohere2-full": ("cohere2", {"layer_types": ["full_attention"] * 3}),
    "glm4": ("glm4", {}),
    "smollm3": ("smollm3", {}),
    "gemma2": ("gemma2", {"sliding_window": WINDOW}),
    "ministral3": ("ministral3", {}),
    "gpt_oss": ("gpt_oss", {"sliding_window": WINDOW}),
}
"""Decoder and options of other text models for LLaVA-OneVision."""

# A softcap and sinks are more than SDPA can compute.
EAGER_ONLY = ("gemma2", "gpt_oss")
TEXT_CELLS = [
    *((name, "eager" if name in EAGER_ONLY else "sdpa") for name in TEXT_MODELS),
    *(full_only(name, "eager") for name in TEXT_MODELS if name not in EAGER_ONLY),
]

each_depth = pytest.mark.parametrize("depth", [0, 2])
each_padding = pytest.mark.parametrize("padding_side", ["left", "right"])


def check(
    stock: Any, inputs: dict[str, Any], depth: int, change: Callable[[Any], None] | None = None
) -> None:
    """Compress a copy of a model, change both, and compare with the eager maps of the other."""
    config = TokenCompressionConfig(
        retention_ratio=0.25,
        min_visual_tokens=0,
        min_tokens_per_visual=0,
        structure_share=0.0,
        scorer="attention",
        scorer_options={"scoring_depth": depth},
    )
    compressed = compress(copy.deepcopy(stock), config)
    for model in (stock, compressed) if change else ():
        change(model)
    prepare_inputs(compressed, **inputs)
    prompt, _ = read_prompt(stock, inputs)
    expected = eager_scores(stock, inputs, prompt, depth)
    assert_scores_and_tokens(compressed.token_compression.last.samples, expected, prompt, config)


@each_depth
@each_attention
@each_padding
@pytest.mark.parametrize("title", ["ragged", "ragged_videos"])
@pytest.mark.parametrize("family", FAMILIES)
def test_supported_families(
    family: str, title: str, padding_side: Any, attention: str, depth: int
) -> None:
    prompts = tiny_family(family).prompts[title]
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    check(tiny_model(attention, family=family), inputs, depth)


@each_depth
@each_attention
@pytest.mark.parametrize("family", FAMILIES)
def test_models_without_a_head(family: str, attention: str, depth: int) -> None:
    prompts = tiny_family(family).prompts["ragged"]
    check(tiny_base_model(attention, family=family), make_inputs(prompts, family=family), depth)


def steer(part: str) -> Callable[[Any], None]:
    """A change that adds a vector to all that goes into a part of the decoder."""

    def add(_: nn.Module, args: Any, kwargs: Any) -> Any:
        vector = torch.linspace(-2, 2, HIDDEN)
        named = {
            k: v + vector for k, v in kwargs.items() if k in ("hidden_states", "inputs_embeds")
        }
        return tuple(own + vector for own in args), {**kwargs, **named}

    def change(model: Any) -> None:
        module = model.model.language_model.get_submodule(part)
        module.register_forward_pre_hook(add, with_kwargs=True)

    return change


@each_depth
@pytest.mark.parametrize(
    "part", ["", "layers.0", "layers.0.self_attn", "layers.0.self_attn.k_proj"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_that_change_what_the_attention_sees(family: str, part: str, depth: int) -> None:
    """Set after compression."""
    prompts = tiny_family(family).prompts["ragged"]
    check(tiny_model(family=family), make_inputs(prompts, family=family), depth, steer(part))


@each_depth
@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_attention_mask(family: str, depth: int) -> None:
    inputs = make_inputs(tiny_family(family).prompts["one_image"], family=family)
    del inputs["attention_mask"]
    check(tiny_model(family=family), inputs, depth)


@each_depth
@each_padding
@pytest.mark.parametrize(("name", "attention"), TEXT_CELLS)
def test_other_text_models(name: str, attention: str, padding_side: Any, depth: int) -> None:
    model_type, options = TEXT_MODELS[name]
    model = decoder_model(model_type, attention, **options)
    prompts = tiny_family("llava_onevision").prompts["ragged"]
    inputs = make_inputs(prompts, family="llava_onevision", padding_side=padding_side)
    check(model, inputs, depth)


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_features_of_any_size(size: float) -> None:
    """Granite's factor on what goes into layer 0 cancels in its norm, unless that is small."""
    model = decoder_model("granite", embedding_multiplier=12.0)
    model.get_input_embeddings().weight.data.mul_(10)
    for parameter in model.model.multi_modal_projector.linear_2.parameters():
        parameter.data.mul_(size)
    model.model.image_newline.data.mul_(size)
    prompts = tiny_family("llava_onevision").prompts["ragged"]
    check(model, make_inputs(prompts, family="llava_onevision"), depth=0)


class Int8Linear(nn.Module):
    """A quantised layer: it has no weight, only what it makes one of when it runs."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.register_buffer("scale", weight.abs().amax(dim=1, keepdim=True) / 127)
        self.register_buffer("quantised", (weight / self.scale).round().to(torch.int8))
        self.bias = layer.bias

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.quantised * self.scale, self.bias)


@each_depth
@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_layers(family: str, depth: int) -> None:
    model = tiny_model(family=family)
    for layer in model.model.language_model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(layer.self_attn, name, Int8Linear(getattr(layer.self_attn, name)))
    prompts = tiny_family(family).prompts["ragged"]
    inputs = make_inputs(prompts, family=family)
    check(model, inputs, depth)
    plain, _ = read_prompt(tiny_model(family=family), inputs)
    change = eager_scores(tiny_model(family=family), inputs, plain, depth)
    assert (eager_scores(model, inputs, plain, depth) - change).abs().max() > 1e-5


def test_the_reference_refuses_a_hybrid() -> None:
    """Its maps are fewer than its layers, so that a depth would name another layer's map."""
    prompts = tiny_family("llava_onevision").prompts["one_image"]
    inputs = make_inputs(prompts, family="llava_onevision")
    with pytest.raises(ValueError, match="returns no eager attention map per layer"):
        eager_maps(decoder_model("lfm2"), inputs)
