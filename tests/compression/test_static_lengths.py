"""`pad_to_multiple_of`: few lengths, the same answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from hf_token_compress import compress, load_tiny, prepare_inputs
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.composed import scene_samples

pytestmark = pytest.mark.core

MULTIPLE = 24
MODELS = ("qwen2-vl", "llava-onevision", "vila")


def prompts(processor: Any, seed: int, count: int = 2) -> dict[str, Any]:
    """Questions of different lengths."""
    samples = scene_samples(["colour", "relation", "letter"], 1, seed=seed)[:count]
    return dict(encode_samples(processor, samples))


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_padded_prompts_have_the_logits_and_answers_of_others(name: str, ratio: float) -> None:
    """With a ratio of 1 nothing is dropped, and prompts are padded all the same."""
    model, processor = load_tiny(name, dtype=torch.float32)
    inputs = prompts(processor, seed=300)
    found = {}
    for multiple in (None, MULTIPLE):
        config = {"retention_ratio": ratio, "scorer": "attention", "pad_to_multiple_of": multiple}
        compress(model, config)
        with torch.no_grad():
            prepared = prepare_inputs(model, **inputs)
            logits = model(**inputs).logits
            answers = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        found[multiple] = prepared, logits, answers[:, -4:]
    (plain, expected, answers), (padded, logits, own_answers) = found.values()
    length, before = padded["input_ids"].shape[1], plain["input_ids"].shape[1]
    assert length % MULTIPLE == 0 <= length - before < MULTIPLE
    assert logits.shape[1] == length
    for sample, mask in enumerate(plain["attention_mask"].bool()):
        own = padded["attention_mask"][sample].bool()
        ids = plain["input_ids"][sample, mask]
        assert torch.equal(padded["input_ids"][sample, own], ids)
        assert_close(
            logits[sample, length - len(ids) :],
            expected[sample, before - len(ids) :],
            atol=1e-4,
            rtol=0,
        )
    assert torch.equal(own_answers, answers)


@pytest.mark.parametrize("name", MODELS[:2])
def test_questions_of_different_lengths_share_one_graph(name: str) -> None:
    """The stock forward compiles as a whole, without dynamic shapes."""
    config = {"retention_ratio": 0.25, "pad_to_multiple_of": 128}
    model, processor = load_tiny(name, dtype=torch.float32, token_compression=config)
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model.forward, fullgraph=True, backend=backend, dynamic=False)
    lengths = set()
    for sample in scene_samples(["colour", "relation", "letter"], 1, seed=300):
        inputs = encode_samples(processor, [sample])
        lengths.add(inputs["input_ids"].shape[1])
        with torch.no_grad():
            prepared = prepare_inputs(model, **inputs)
            logits = compiled(**prepared, use_cache=False).logits
            assert_close(logits, model(**prepared, use_cache=False).logits)
    assert len(lengths) > 1
    assert len(graphs) == 1
