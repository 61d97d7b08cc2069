"""LLaVA with a Pixtral tower, as Pixtral checkpoints have it: images of any size."""

from __future__ import annotations

import copy

import pytest
import torch
from pairs import HALF
from tiny_models import IMAGE, RAGGED, TEXT_CONFIG, make_inputs, tiny_config
from transformers import LlavaConfig, LlavaForConditionalGeneration

from hf_token_compress import compress

pytestmark = pytest.mark.core


def test_images_of_any_size() -> None:
    tower = tiny_config(family="mistral3").vision_config.to_dict()
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8},
        # Mistral 3 merges four patches of half that side.
        vision_config={**tower, "patch_size": 8},
        image_token_id=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    stock = LlavaForConditionalGeneration(config).eval()
    compressed = compress(copy.deepcopy(stock), HALF)
    inputs = make_inputs(RAGGED, family="mistral3")
    compressed(**inputs)
    visuals = [own for one in compressed.token_compression.last.samples for own in one.visuals]
    shapes = [grid.shape for own in visuals for grid in own.grids]
    assert shapes == [(1, 6, 8), (1, 6, 6), (1, 4, 4), (1, 4, 6), (1, 6, 6)]
    expected = stock(**inputs).logits
    assert torch.equal(compressed(**inputs, token_compression=1.0).logits, expected)
