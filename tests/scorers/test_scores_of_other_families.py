"""Scores equal eager attention where attention is not causal, with windows and prefixes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from eager_attention import assert_scores_and_tokens, eager_scores
from matrix import each_attention
from tiny_models import HIDDEN, IMAGE, RAGGED, TEXT_CONFIG, make_inputs, tiny_config, tiny_model
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt

pytestmark = pytest.mark.core


def check(stock: Any, inputs: dict[str, Any], depth: int) -> None:
    """Compress a copy of a model and compare with its eager maps."""
    config = TokenCompressionConfig(
        retention_ratio=0.25,
        min_visual_tokens=0,
        min_tokens_per_visual=0,
        structure_share=0.0,
        scorer="attention",
        scorer_options={"scoring_depth": depth},
    )
    compressed = compress(copy.deepcopy(stock), config)
    prepare_inputs(compressed, **inputs)
    prompt, _ = read_prompt(stock, inputs)
    expected = eager_scores(stock, inputs, prompt, depth)
    assert_scores_and_tokens(compressed.token_compression.last.samples, expected, prompt, config)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_gemma3_with_a_short_window(padding_side: Any, depth: int) -> None:
    """An image is one block beyond the window, in layers with a window too."""
    stock = tiny_model(family="gemma3", sliding_window=24)
    check(stock, make_inputs(RAGGED, family="gemma3", padding_side=padding_side), depth)


@pytest.mark.parametrize("depth", [0, 2])
@each_attention
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_prefix_that_attends_both_ways(padding_side: Any, attention: str, depth: int) -> None:
    """Tokens of PaliGemma's prompt see all of it, also what comes after them."""
    gemma3 = tiny_config(family="gemma3")
    config = PaliGemmaConfig(
        text_config={**TEXT_CONFIG, "model_type": "gemma", "head_dim": 8},
        vision_config={**gemma3.vision_config.to_dict(), "patch_size": 8},
        image_token_index=IMAGE,
        projection_dim=HIDDEN,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    stock = PaliGemmaForConditionalGeneration(config).eval()
    inputs = make_inputs(RAGGED, family="gemma3", padding_side=padding_side)
    inputs["token_type_ids"].zero_()
    _, layer = read_prompt(stock, inputs)
    assert layer.mask is not None
    check(stock, inputs, depth)
