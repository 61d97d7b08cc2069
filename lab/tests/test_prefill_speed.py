"""The benchmark of prefill speed measures the model and the compression that it names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_token_compress import TokenCompressionConfig, compress, uncompress
from lab.benchmarks.mapper_cost import HEAD_DIM, KEY_HEADS, Shapes, build_model
from lab.benchmarks.prefill_speed import make_inputs, measure

SHAPES = Shapes(rows=4, columns=6, instruction=5)
TEXT = 3 + SHAPES.instruction
"""Tokens around the image."""


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(1, torch.bfloat16)


def cache_bytes(tokens: int, batch: int) -> int:
    """Keys and values of one layer in bfloat16."""
    return 2 * batch * tokens * KEY_HEADS * HEAD_DIM * 2


@pytest.mark.parametrize("batch", [1, 2])
def test_the_cache_holds_the_kept_tokens(model: Any, batch: int) -> None:
    inputs = make_inputs(SHAPES, batch, torch.device("cpu"), torch.bfloat16)
    assert inputs["input_ids"].shape == (batch, SHAPES.visual + TEXT)
    stock = measure(model, inputs, new_tokens=1, repeats=1)
    assert stock.cache == cache_bytes(SHAPES.visual + TEXT, batch)
    compress(model, TokenCompressionConfig(retention_ratio=0.25))
    try:
        shorter = measure(model, inputs, new_tokens=1, repeats=1)
        kept = [s.visual_tokens_after for s in model.token_compression.last.samples]
    finally:
        uncompress(model)
    assert kept == [SHAPES.visual // 4] * batch
    assert shorter.cache == cache_bytes(kept[0] + TEXT, batch)
    assert min(stock.first_token, shorter.first_token) > 0
