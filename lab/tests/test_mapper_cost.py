"""The cost of scoring at the widths of a 7B, and collections of the ground truth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_token_compress import load_tiny
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.mapper import MapperConfig, ModelIdentity, RelevanceMapper
from hf_token_compress.training.shards import ShardFolder
from lab.benchmarks.layer_bound import collect_truth
from lab.benchmarks.mapper_cost import (
    HEADS,
    HIDDEN,
    LAYERS,
    Shapes,
    mapper_operations,
    prefill_operations,
    scoring_operations,
)

SHAPES = Shapes()


def mapper_of_7b(network: str, **options: Any) -> RelevanceMapper:
    identity = ModelIdentity("7B", None, "qwen2_vl", HIDDEN, LAYERS, HEADS)
    return RelevanceMapper(MapperConfig(identity, network=network, **options))


def test_operations_of_the_papers_network_by_hand() -> None:
    widths = [HEADS, 32, 64, 128, 256, 512]
    products = sum(9 * width + width * following for width, following in pairwise(widths)) + 512
    assert mapper_operations(SHAPES, mapper_of_7b("conv1d")) == 2 * 1500 * products


def test_operations_of_a_prefill() -> None:
    """A 7B's language model has 6.5 billion weights in its layers, each used once per token."""
    assert prefill_operations(1) == pytest.approx(2 * 6.5e9, rel=0.01)
    assert prefill_operations(2000) > 2000 * prefill_operations(1)


@pytest.mark.parametrize("network", ["grid", "conv1d"])
@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.1])
def test_scoring_is_a_hundredth_of_the_compressed_prefill_at_most(
    network: str, ratio: float
) -> None:
    kept = round(ratio * SHAPES.visual) + SHAPES.instruction
    share = scoring_operations(SHAPES, mapper_of_7b(network)) / prefill_operations(kept)
    assert share <= 0.01


def test_operations_of_the_other_inputs_by_hand() -> None:
    """A width of 32 channels; of each embedding a norm, the mean's cosine and 40 words' cosines."""
    costs = [
        scoring_operations(SHAPES, mapper_of_7b("grid", inputs=inputs))
        for inputs in (("attention",), ("attention", "text", "embedding"))
    ]
    assert costs[1] - costs[0] == 2 * 1500 * (4 * 32 + 42 * HIDDEN)


def test_the_truth_is_collected_as_relevance(tmp_path: Path) -> None:
    model, processor = load_tiny("qwen2-vl")
    samples = scene_samples(["place", "relation", "presence"], 4, split="mapper")
    collect_truth(model, processor, samples, tmp_path, name="tiny-qwen2-vl")
    collection = ShardFolder(tmp_path)
    assert collection.identity.name == "tiny-qwen2-vl"
    found = {collection[place].number: collection[place] for place in range(len(collection))}
    for number, sample in enumerate(samples):
        if not sample.relevant_boxes:
            assert number not in found
            continue
        expected = torch.zeros(8, 8)
        for left, top, right, bottom in sample.relevant_boxes:
            # A visual token is 24 pixels wide.
            expected[top // 24 : bottom // 24, left // 24 : right // 24] = 1.0
        assert torch.equal(found[number].relevance, expected.flatten())
