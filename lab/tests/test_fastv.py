"""FastV's choice and its masks, against stock maps and against compression."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.evaluation.answering import answer_batch
from lab.benchmarks.fastv import kept_inside, masked_from, measure_fastv, share_above

SAMPLES = scene_samples(["colour", "place"], 3, seed=300)
LAYERS, TOKENS = 4, 64


@pytest.fixture
def loaded() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl", attn_implementation="eager", dtype=torch.float32)


def test_layers_above_keep_what_the_layers_below_leave() -> None:
    """Half of all tokens in four layers is 2, of which layer 0 takes 1 and three layers a third."""
    assert share_above(0.5, LAYERS, 1) == pytest.approx(1 / 3)
    assert share_above(1.0, LAYERS, 2) == 1.0
    with one_sentence(ValueError, "above that, but it is 0.5"):
        share_above(0.5, LAYERS, 2)


def test_the_last_token_of_the_layer_before_chooses(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = dict(encode_samples(processor, SAMPLES))
    keep, kept_visual = kept_inside(model, inputs, 0.75, 2)  # (3 - 2) / 2 of the tokens
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[1].mean(1)  # [B, S, S]
    for number, kept in enumerate(kept_visual):
        visual = inputs["mm_token_type_ids"][number] > 0
        assert len(kept) == TOKENS
        best = maps[number, -1, visual].topk(TOKENS // 2).indices
        assert kept.nonzero().flatten().tolist() == best.sort().values.tolist()
        assert torch.equal(keep[number, visual], kept)
        assert bool(keep[number, ~visual].eq(inputs["attention_mask"][number, ~visual] > 0).all())


def test_hiding_from_layer_0_on_is_compression(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = dict(encode_samples(processor, SAMPLES))
    keep = torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    config = TokenCompressionConfig(retention_ratio=0.1, scorer="random", min_visual_tokens=0)
    compressed = compress(load_tiny("qwen2-vl", dtype=torch.float32)[0], config)
    expected = answer_batch(compressed, processor, inputs, 8).texts
    for number, sample in enumerate(compressed.token_compression.last.samples):
        keep[number, sample.visual_indices] = sample.kept_visual
    stock = answer_batch(model, processor, inputs, 8).texts
    with masked_from(model, 0, keep):
        assert answer_batch(model, processor, inputs, 8).texts == expected
    assert answer_batch(model, processor, inputs, 8).texts == stock != expected


def test_all_tokens_give_the_stock_answers(loaded: tuple[Any, Any]) -> None:
    right = measure_fastv(*loaded, SAMPLES, 1.0)
    assert right == {"colour": [True] * 3, "place": [True] * 3}
