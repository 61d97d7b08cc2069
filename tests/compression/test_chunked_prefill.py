"""Prefill in chunks: since 5.23, Transformers gives each chunk its own visual features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import (
    CHUNKS_CARRY_FEATURES,
    KEEP_ALL,
    ModelPair,
    answer,
    assert_same,
    make_pair,
    masked_inputs,
)
from tiny_models import ONE_IMAGE, PROMPTS, RAGGED, TEXT_ONLY, make_inputs

needs_features = pytest.mark.skipif(not CHUNKS_CARRY_FEATURES, reason="needs Transformers 5.23")
each_chunk = pytest.mark.parametrize("chunk", [1, 7, 64])


@needs_features
@each_chunk
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_equals_prefill_at_once(prompts: Any, chunk: int, pair: ModelPair) -> None:
    inputs = make_inputs(prompts)
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    whole = pair.compressed.generate(**inputs, **options)
    chunked = pair.compressed.generate(**inputs, **options, prefill_chunk_size=chunk)
    assert torch.equal(chunked.sequences, whole.sequences)
    assert_same(torch.stack(chunked.logits), torch.stack(whole.logits))


@needs_features
@each_chunk
def test_equals_stock_with_dropped_tokens_hidden(chunk: int, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    options = {"max_new_tokens": 6, "prefill_chunk_size": chunk}
    actual = pair.compressed.generate(**inputs, **options)
    expected = pair.stock.generate(**masked_inputs(pair, inputs), max_new_tokens=6)
    assert torch.equal(actual, expected)


@needs_features
def test_keep_all_equals_stock() -> None:
    stock, compressed = make_pair(KEEP_ALL)
    inputs = make_inputs([ONE_IMAGE])
    options = {"max_new_tokens": 6, "prefill_chunk_size": 9}
    expected = stock.generate(**inputs, **options)
    assert torch.equal(compressed.generate(**inputs, **options), expected)


@pytest.mark.core
@pytest.mark.skipif(CHUNKS_CARRY_FEATURES, reason="right from Transformers 5.23 on")
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_older_transformers_are_refused(ratio: float, pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    with one_sentence(ValueError, "prefill_chunk_size"):
        pair.compressed.generate(**inputs, prefill_chunk_size=9, token_compression=ratio)


@pytest.mark.core
def test_text_only_prompts_are_prefilled_in_chunks(pair: ModelPair) -> None:
    inputs = make_inputs([TEXT_ONLY])
    whole = pair.stock.generate(**inputs, max_new_tokens=4)
    chunked = pair.compressed.generate(**inputs, max_new_tokens=4, prefill_chunk_size=5)
    assert torch.equal(answer(chunked, inputs), answer(whole, inputs))
