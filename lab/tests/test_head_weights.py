"""Head weights for "hawk", against correlations computed by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_token_compress import compress, load_tiny, prepare_inputs
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.relevance import relevance
from lab.benchmarks.head_weights import head_weights


def test_a_weight_is_the_correlation_of_a_head_with_relevance() -> None:
    model, processor = load_tiny("qwen2-vl", dtype=torch.float32)
    samples = scene_samples(["colour", "place", "letter"], 1, seed=300, split="mapper")
    found = head_weights(model, processor, samples, batch_size=2)
    inputs = dict(encode_samples(processor, samples))
    explained = relevance(model, inputs, max_new_tokens=8, targets="sum").samples
    heads = model.config.text_config.num_attention_heads
    expected = []
    for head in range(heads):
        options = {"head_weights": [float(own == head) for own in range(heads)]}
        config = {"scorer": "hawk", "scorer_options": options, "min_visual_tokens": 0}
        prepare_inputs(compress(model, config), **inputs)
        pairs = zip(model.token_compression.last.samples, explained, strict=True)
        correlations = [
            np.corrcoef(one.scores, other.scores.clamp(min=0))[0, 1] for one, other in pairs
        ]
        expected.append(max(0.0, float(np.mean(correlations))))
    assert sum(found) == pytest.approx(1, abs=1e-5)
    assert found == pytest.approx([own / sum(expected) for own in expected], abs=1e-4)
