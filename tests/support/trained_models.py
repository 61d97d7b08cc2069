"""Checks of trained tiny models on images and clips."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from pairs import ModelPair, masked_inputs

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import Sample, answer_samples

RATIO = 0.25


def load_trained(name: str) -> tuple[ModelPair, Any]:
    """The model, stock and compressed to a quarter of its visual tokens, and its processor."""
    stock, processor = load_tiny(name)
    setting = TokenCompressionConfig(retention_ratio=RATIO)
    return ModelPair(stock, compress(copy.deepcopy(stock), setting)), processor


def right_answers(model: Any, processor: Any, samples: Sequence[Sample]) -> Counter[str]:
    """Right answers by kind of question; all kinds are there."""
    right = Counter({sample.kind: 0 for sample in samples})
    answers = answer_samples(model, processor, samples)
    for sample, given in zip(samples, answers, strict=True):
        right[sample.kind] += given == sample.answer
    return right


def check_dropped_equals_hidden(pair: ModelPair, processor: Any, samples: Sequence[Sample]) -> None:
    """Answers and their logits, and how many tokens were kept."""
    inputs = encode_samples(processor, samples)
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    actual = pair.compressed.generate(**inputs, **options)
    expected = pair.stock.generate(**masked_inputs(pair, inputs), **options)
    assert torch.equal(actual.sequences, expected.sequences)
    # Trained logits are tens, and hidden tokens change the order in which float32 sums are made.
    torch.testing.assert_close(
        torch.stack(actual.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4
    )
    for sample in pair.compressed.token_compression.last.samples:
        assert sample.visual_tokens_after == round(RATIO * sample.visual_tokens_before)
