"""Several sequences in one row are refused in one sentence, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import QUARTER, ModelPair, make_pair
from tiny_models import (
    FAMILIES,
    ONE_IMAGE,
    Prompt,
    family_of,
    make_inputs,
    tiny_model,
)
from torch import Tensor

from hf_token_compress import ModelFamily, prepare_inputs
from hf_token_compress.compression.inputs import read_layout

pytestmark = pytest.mark.core

TWO_PROMPTS: list[Prompt] = [ONE_IMAGE, (2, (6, 8), 5, "end", 3)]


@pytest.fixture(params=FAMILIES)
def of_family(request: pytest.FixtureRequest) -> ModelPair:
    return make_pair(QUARTER, family=request.param)


def packed(model: Any, prompts: list[Prompt]) -> dict[str, Any]:
    """Prompts one after the other in one row; each counts its positions from the start."""
    name = model.config.model_type
    singles = [make_inputs([prompt], family=name) for prompt in prompts]
    positions = [family_of(model).position_ids(model, single) for single in singles]
    inputs = {
        name: torch.cat([single[name] for single in singles], dim=1 if _of_tokens(name) else 0)
        for name in singles[0]
        if name != "attention_mask"
    }
    return {**inputs, "position_ids": torch.cat(positions, dim=-1)}


def _of_tokens(name: str) -> bool:
    return name in ("input_ids", "mm_token_type_ids", "token_type_ids")


def without_text_axis(position_ids: Tensor) -> Tensor:
    return position_ids[1:] if len(position_ids) == 4 else position_ids


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_positions_that_restart(of_family: ModelPair, ratio: float) -> None:
    inputs = packed(of_family.stock, TWO_PROMPTS)
    with one_sentence(ValueError, "packed"):
        of_family.compressed(**inputs, token_compression=ratio)
    inputs["position_ids"] = without_text_axis(inputs["position_ids"])
    with one_sentence(ValueError, "packed"):
        of_family.compressed(**inputs, token_compression=ratio)


@pytest.mark.parametrize("family", ["gemma3", "glm4v", "mistral3", "qwen3_vl"])
def test_families_without_code(family: str) -> None:
    model = tiny_model(family=family)
    inputs = packed(model, TWO_PROMPTS)
    with one_sentence(ValueError, "packed"):
        read_layout(model, ModelFamily(), inputs)
    read_layout(model, ModelFamily(), packed(model, [ONE_IMAGE]))


def test_a_mask_does_not_make_one_sequence_of_them(of_family: ModelPair) -> None:
    inputs = packed(of_family.stock, TWO_PROMPTS)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for call in (of_family.compressed, of_family.compressed.generate):
        with one_sentence(ValueError, "packed"):
            call(**inputs)
    with one_sentence(ValueError, "packed"):
        prepare_inputs(of_family.compressed, **inputs)


def test_one_sequence_is_no_packed_one(of_family: ModelPair) -> None:
    inputs = packed(of_family.stock, [ONE_IMAGE])
    expected = of_family.stock(**inputs, use_cache=False).logits
    actual = of_family.compressed(**inputs, use_cache=False, token_compression=1.0).logits
    assert torch.equal(actual, expected)
    inputs["position_ids"] = without_text_axis(inputs["position_ids"])
    of_family.compressed(**inputs)


def test_borders_of_sequences(of_family: ModelPair) -> None:
    """What collators of padding-free batches add where they leave position ids out."""
    inputs = packed(of_family.stock, TWO_PROMPTS)
    del inputs["position_ids"]
    with one_sentence(ValueError, "cu_seq_lens_q"):
        of_family.compressed(**inputs, cu_seq_lens_q=torch.tensor([0, 9, 20], dtype=torch.int32))
    numbers = torch.ones_like(inputs["input_ids"])
    numbers[:, 20:] = 2
    with one_sentence(ValueError, "attention_mask"):
        of_family.compressed(**inputs, attention_mask=numbers)


def test_gaps_of_masked_prompts_are_kept() -> None:
    """With a mask, Transformers reads gaps as nothing but positions."""
    pair = make_pair(QUARTER, family="llava_onevision")
    inputs = packed(pair.stock, [ONE_IMAGE])
    inputs["position_ids"][:, 5:] += 7
    with one_sentence(ValueError, "packed"):
        pair.compressed(**inputs, use_cache=False)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = pair.stock(**inputs).logits
    assert torch.equal(pair.compressed(**inputs, token_compression=1.0).logits, expected)
