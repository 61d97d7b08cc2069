"""`max_length` and `min_length` count the prompt that the caller passed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import ModelPair, answer
from tiny_models import ONE_IMAGE, RAGGED, TURN_END, make_inputs
from transformers import GenerationConfig, LogitsProcessorList

pytestmark = pytest.mark.core


@pytest.fixture(params=[[ONE_IMAGE], RAGGED], ids=["one_image", "ragged"])
def inputs(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    return make_inputs(request.param)


def prefer_turn_end(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """End the turn as soon as it is allowed."""
    scores = scores.clone()
    scores[:, TURN_END] += 1000.0
    return scores


def never_turn_end(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    scores = scores.clone()
    scores[:, TURN_END] = float("-inf")
    return scores


def new_tokens(model: Any, inputs: dict[str, torch.Tensor], processor: Any, **options: Any) -> int:
    out = model.generate(**inputs, logits_processor=LogitsProcessorList([processor]), **options)
    return answer(out, inputs).shape[1]


@pytest.mark.parametrize("way", ["argument", "config_argument", "own_config"])
def test_max_length(inputs: dict[str, torch.Tensor], way: str, pair: ModelPair) -> None:
    limit = inputs["input_ids"].shape[1] + 5
    model = pair.compressed
    options: dict[str, Any] = {}
    if way == "argument":
        options = {"max_length": limit}
    elif way == "config_argument":
        options = {"generation_config": GenerationConfig(max_length=limit, pad_token_id=94)}
    else:
        model.generation_config.max_length = limit
    assert new_tokens(model, inputs, never_turn_end, **options) == 5


@pytest.mark.parametrize("way", ["argument", "config_argument", "own_config"])
def test_min_length(inputs: dict[str, torch.Tensor], way: str, pair: ModelPair) -> None:
    length = inputs["input_ids"].shape[1] + 4
    model = pair.compressed
    assert new_tokens(model, inputs, prefer_turn_end, max_new_tokens=9) == 1
    options: dict[str, Any] = {"max_new_tokens": 9}
    if way == "argument":
        options["min_length"] = length
    elif way == "config_argument":
        options["generation_config"] = GenerationConfig(
            min_length=length, pad_token_id=94, eos_token_id=TURN_END
        )
    else:
        model.generation_config.min_length = length
    expected = new_tokens_of_stock(pair, inputs, options)
    assert new_tokens(model, inputs, prefer_turn_end, **options) == expected >= 4


def new_tokens_of_stock(
    pair: ModelPair, inputs: dict[str, torch.Tensor], options: dict[str, Any]
) -> int:
    pair.stock.generation_config.min_length = pair.compressed.generation_config.min_length
    return new_tokens(pair.stock, inputs, prefer_turn_end, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 3},
        {"max_new_tokens": 7, "min_new_tokens": 5},
        {"max_new_tokens": 3, "max_length": 500},
        {"max_new_tokens": 7, "min_length": 2},
        {},
    ],
    ids=["max_new", "min_new", "new_before_length", "small_min_length", "no_limit"],
)
@pytest.mark.parametrize("processor", [prefer_turn_end, never_turn_end])
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
def test_as_many_new_tokens_as_the_stock_model(
    inputs: dict[str, torch.Tensor], options: dict[str, Any], processor: Any, pair: ModelPair
) -> None:
    expected = new_tokens(pair.stock, inputs, processor, **options)
    assert new_tokens(pair.compressed, inputs, processor, **options) == expected


def test_a_max_length_below_the_prompt_raises_as_in_the_stock_model(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    limit = inputs["input_ids"].shape[1] - 10
    with pytest.raises(ValueError, match="max_length"):
        pair.stock.generate(**inputs, max_length=limit)
    with pytest.raises(ValueError, match="max_length"):
        pair.compressed.generate(**inputs, max_length=limit)
