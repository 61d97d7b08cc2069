"""At ratio 1.0 a compressed model is the stock model, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from matrix import each_attention, each_dtype, full_only
from pairs import KEEP_ALL, make_pair
from tiny_models import family_prompts, make_inputs, tiny_base_model

from hf_token_compress import compress

pytestmark = [pytest.mark.core, each_attention, each_dtype]

each_prompt = pytest.mark.parametrize(("family", "prompts"), family_prompts())
# A batch shows what a lone prompt shows, and padding.
each_batch = pytest.mark.parametrize(
    ("family", "prompts"), family_prompts("ragged", "ragged_videos")
)


def labels_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last five tokens of every sample, where they are not padding."""
    labels = inputs["input_ids"].clone()
    labels[:, :-5] = -100
    return labels.masked_fill(inputs["attention_mask"] == 0, -100)


@pytest.mark.parametrize("padding_side", ["left", full_only("right")])
@each_prompt
def test_logits_and_loss(
    family: str, prompts: Any, padding_side: Any, attention: str, dtype: torch.dtype
) -> None:
    stock, compressed = make_pair(KEEP_ALL, family=family, attention=attention, dtype=dtype)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side, dtype=dtype)
    inputs["labels"] = labels_of(inputs)
    expected = stock(**inputs)
    actual = compressed(**inputs)
    assert torch.equal(actual.logits, expected.logits)
    assert torch.equal(actual.loss, expected.loss)
    assert expected.loss.isfinite()


@each_batch
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generated_ids(
    family: str, prompts: Any, options: dict[str, Any], attention: str, dtype: torch.dtype
) -> None:
    stock, compressed = make_pair(KEEP_ALL, family=family, attention=attention, dtype=dtype)
    inputs = make_inputs(prompts, family=family, dtype=dtype)
    expected = stock.generate(**inputs, max_new_tokens=6, do_sample=False, **options)
    actual = compressed.generate(**inputs, max_new_tokens=6, do_sample=False, **options)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("padding_side", ["right", full_only("left")])
@each_batch
def test_base_model(
    family: str, prompts: Any, padding_side: Any, attention: str, dtype: torch.dtype
) -> None:
    stock = tiny_base_model(attention, dtype, family=family)
    compressed = compress(copy.deepcopy(stock), KEEP_ALL)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side, dtype=dtype)
    expected = stock(**inputs).last_hidden_state
    assert torch.equal(compressed(**inputs).last_hidden_state, expected)
