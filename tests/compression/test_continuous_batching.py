"""`generate_batch`: text as stock, images and videos refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import ModelPair, make_pair
from tiny_models import FAMILIES, ONE_IMAGE, ONE_VIDEO, make_inputs, tiny_model
from transformers import ContinuousBatchingConfig, GenerationConfig

from hf_token_compress import ModelFamily
from hf_token_compress.compression.inputs import refuse_visual_prompts

pytestmark = pytest.mark.core

TEXT = [[10, 11, 12, 13], [20, 21, 22]]
GENERATION = GenerationConfig(max_new_tokens=3, do_sample=False, eos_token_id=-1, pad_token_id=0)
SMALL = ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=32, block_size=32)


def answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    found = model.generate_batch(prompts, GENERATION, SMALL)
    return [result.generated_tokens for result in found.values()]


def test_text_as_stock(pair: ModelPair) -> None:
    expected = answers(pair.stock, TEXT)
    assert [len(answer) for answer in expected] == [3, 3]
    assert answers(pair.compressed, TEXT) == expected


@pytest.mark.parametrize(("prompt", "kind"), [(ONE_IMAGE, "image"), (ONE_VIDEO, "video")])
@pytest.mark.parametrize("family", FAMILIES)
def test_placeholders(family: str, prompt: Any, kind: str) -> None:
    compressed = make_pair(family=family).compressed
    inputs = make_inputs([prompt], family=family)
    rows = [TEXT[0], inputs["input_ids"][0].tolist()]
    for given in (rows, [torch.tensor(row) for row in rows]):
        with one_sentence(ValueError, "generate_batch", kind):
            compressed.generate_batch(given, GENERATION)


@pytest.mark.parametrize("name", ["gemma3", "glm4v", "mistral3", "qwen3_vl"])
def test_families_without_code(name: str) -> None:
    """Some have no videos, or mark visual tokens by more than their ids."""
    model, family = tiny_model(family=name), ModelFamily()
    refuse_visual_prompts(model, family, {"inputs": TEXT})
    rows = make_inputs([ONE_IMAGE], family=name)["input_ids"].tolist()
    with one_sentence(ValueError, "generate_batch", "image"):
        refuse_visual_prompts(model, family, {"inputs": rows})


def test_pixels(pair: ModelPair) -> None:
    pixels = make_inputs([ONE_IMAGE])["pixel_values"]
    with one_sentence(ValueError, "generate_batch", "image"):
        pair.compressed.generate_batch(TEXT, GENERATION, pixel_values=pixels)
