"""Relevance in linear memory against stored maps and the whole matrix."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from matrix import one_at_a_time
from relevance_reference import ATTENTION_RULES, expected_relevance
from tiny_models import (
    FAMILIES,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    TEXT_IDS,
    TWO_IMAGES,
    TWO_TURNS,
    make_inputs,
    tiny_model,
)
from torch import Tensor

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.relevance import relevance

pytestmark = pytest.mark.core

BATCH = (ONE_IMAGE, TWO_TURNS, TWO_IMAGES, IMAGE_AND_VIDEO)
ANSWERS = [torch.tensor(ids) for ids in ([3], [5, 7, 9], [11, 2], [1, 40, 41, 42])]


def assert_equal_relevance(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal within a share of the largest, and in the same order."""
    assert actual.dtype == torch.float32
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * scale)
    # In order: wherever the reference tells two tokens apart beyond rounding.
    order = expected.argsort(stable=True)
    assert (actual[order].diff() > -2 * tolerance * scale).all()


def reference(prompt: Any, answer: Tensor, rule: str, family: str, **options: Any) -> Tensor:
    """[T, N] for one prompt, from stored maps."""
    model = tiny_model("eager", family=family, **options)
    return expected_relevance(model, make_inputs([prompt], family=family), answer, rule)


@pytest.mark.parametrize(("family", "rule"), one_at_a_time(FAMILIES, ATTENTION_RULES))
def test_a_ragged_batch_equals_the_equations(family: str, rule: str) -> None:
    """GQA, padding, several images and videos, tiles and newlines, answers of 1 to 4 tokens."""
    report = relevance(
        tiny_model(family=family),
        make_inputs(BATCH, family=family),
        answer_ids=ANSWERS,
        rule=rule,
        return_per_token=True,
    )
    for prompt, answer, sample in zip(BATCH, ANSWERS, report.samples, strict=True):
        expected = reference(prompt, answer, rule, family)
        assert sample.per_token is not None
        assert sample.per_token.shape == expected.shape
        for actual_token, expected_token in zip(sample.per_token, expected, strict=True):
            assert_equal_relevance(actual_token, expected_token)
        assert_equal_relevance(sample.scores, expected.mean(0))


@st.composite
def decoders(draw: Any) -> dict[str, Any]:
    """The text options of a decoder with a Qwen2 or Llama architecture."""
    key_heads, group = draw(st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 2)]))
    family = draw(st.sampled_from(["llava_onevision", "vila15"]))
    options: dict[str, Any] = {
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": key_heads * group,
        "num_key_value_heads": key_heads,
    }
    window = draw(st.none() | st.integers(2, 9))
    if family == "llava_onevision" and window is not None:
        options |= {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    return {"family": family, **options}


PROMPTS = st.tuples(st.integers(1, 9), st.sampled_from([(4, 4), (6, 8)]), st.integers(1, 9))
TOKEN_IDS = st.lists(st.integers(0, TEXT_IDS - 1), min_size=1, max_size=3)


@given(
    decoder=decoders(),
    samples=st.lists(st.tuples(PROMPTS, TOKEN_IDS), min_size=1, max_size=3),
    checkpointing=st.booleans(),
)
@settings(max_examples=30)
def test_decoders_of_any_shape_equal_the_equations(
    decoder: dict[str, Any], samples: list[tuple[Any, list[int]]], checkpointing: bool
) -> None:
    answers = [torch.tensor(ids) for _, ids in samples]
    report = relevance(
        tiny_model(**decoder),
        make_inputs([prompt for prompt, _ in samples], family=decoder["family"]),
        answer_ids=answers,
        rule="gae",
        return_per_token=True,
        checkpointing=checkpointing,
    )
    for (prompt, _), answer, sample in zip(samples, answers, report.samples, strict=True):
        assert sample.per_token is not None
        expected = reference(prompt, answer, "gae", **decoder)
        for actual_token, expected_token in zip(sample.per_token, expected, strict=True):
            # Wide heads have large logits, which enlarge the rounding of float32.
            assert_equal_relevance(actual_token, expected_token, tolerance=1e-4)


def test_a_compressed_model_is_explained_uncompressed() -> None:
    inputs = make_inputs(BATCH)
    stock = relevance(tiny_model(), inputs, max_new_tokens=3)
    compressed = compress(tiny_model(), TokenCompressionConfig(retention_ratio=0.25))
    for one, other in zip(
        stock.samples, relevance(compressed, inputs, max_new_tokens=3).samples, strict=True
    ):
        assert torch.equal(one.answer_ids, other.answer_ids)
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("limit", [1, 2**12, 2**30])
def test_the_memory_limit_changes_nothing_but_memory(limit: int) -> None:
    inputs = make_inputs(BATCH)
    whole = relevance(tiny_model(), inputs, answer_ids=ANSWERS, rule="gae")
    cut = relevance(tiny_model(), inputs, answer_ids=ANSWERS, rule="gae", memory_limit=limit)
    for one, other in zip(whole.samples, cut.samples, strict=True):
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_tensor_is_as_large_as_an_attention_map(side: Literal["left", "right"]) -> None:
    """Of a batch with padding; masks would be as large too."""
    prompts = [(5, (6, 8), 700), (3, (4, 6), 600)]
    inputs = make_inputs(prompts, padding_side=side)
    length = inputs["input_ids"].shape[1]
    with LargestTensor() as largest:
        relevance(tiny_model(), inputs, answer_ids=ANSWERS[:2], rule="gae", memory_limit=2**20)
    assert 0 < largest.stored < length**2
