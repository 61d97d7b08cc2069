"""Attention of several layers, rollout and the controls as scorers in one table."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from errors import one_sentence

from hf_token_compress import TokenCompressionConfig, compress, load_tiny, uncompress
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import ConfiguredScorer, measure_retention, scene_samples
from lab.benchmarks.depths import SCORERS, measure_depths, scorer_at_depth

LAYERS = 4
SAMPLES = scene_samples(["colour", "place"], 4, seed=300)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl")


def test_layers_are_named_by_number_and_by_place() -> None:
    depths = {
        name: scorer_at_depth(f"attention@{name}", LAYERS).options["scoring_depth"]
        for name in ("0", "1", "middle", "last", "3")
    }
    assert depths == {"0": 0, "1": 1, "middle": 2, "last": 3, "3": 3}
    assert scorer_at_depth("random", LAYERS) == "random"


@pytest.mark.parametrize("name", ["attention@4", "attention@-1", "attention@", "attention@top"])
def test_a_layer_that_is_not_there_is_refused(name: str) -> None:
    with one_sentence(ValueError, repr(name), "0 to 3"):
        scorer_at_depth(name, LAYERS)


def test_results_have_every_scorer_and_ratio_in_order(loaded: tuple[Any, Any]) -> None:
    results = measure_depths(*loaded, SAMPLES, SCORERS, retention_ratios=[0.5, 0.25])
    rows = [(result.scorer, result.retention_ratio) for result in results[1:]]
    assert rows == [(name, ratio) for name in SCORERS for ratio in (0.5, 0.25)]
    assert all(result.kept_share == result.retention_ratio for result in results[1:])
    truth = next(result for result in results if result.scorer == "truth")
    assert truth.accuracy() == 1.0


def test_attention_at_layer_0_is_the_scorer_attention(loaded: tuple[Any, Any]) -> None:
    _, plain = measure_retention(*loaded, SAMPLES, scorers=["attention"], retention_ratios=[0.1])
    _, same = measure_depths(*loaded, SAMPLES, ["attention@0"], retention_ratios=[0.1])
    assert same.correct == plain.correct


def test_rollout_is_that_of_the_row_before_the_answer(loaded: tuple[Any, Any]) -> None:
    """Against the product of averaged attention maps that the model itself returns."""
    model, processor = loaded
    inputs = encode_samples(processor, SAMPLES[:1])
    rollout = scorer_at_depth("rollout", LAYERS)
    assert isinstance(rollout, ConfiguredScorer)
    setting = TokenCompressionConfig(
        retention_ratio=0.25, scorer=rollout.scorer, scorer_options=dict(rollout.options)
    )
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions
        compress(model, setting)
        model(**inputs)
    (sample,) = model.token_compression.last.samples
    uncompress(model)
    model.set_attn_implementation("sdpa")
    identity = torch.eye(maps[0].shape[-1])
    product = identity
    for attention in maps:
        product = (attention[0].mean(0) + identity) / 2 @ product
    expected = product[-1, sample.visual_indices]
    best = expected.topk(16).indices.sort().values
    assert torch.equal(sample.kept_visual.nonzero().flatten(), best)


def test_an_answer_that_ends_at_once_can_be_scored(loaded: tuple[Any, Any]) -> None:
    """The model is made to end every turn at once: its answers have no tokens of their own."""
    model, processor = loaded
    settings = model.generation_config
    model.generation_config = copy.deepcopy(settings)
    model.generation_config.forced_eos_token_id = settings.eos_token_id
    try:
        full, scored = measure_depths(
            model, processor, SAMPLES, ["rollout"], retention_ratios=[0.25], max_new_tokens=1
        )
    finally:
        model.generation_config = settings
    assert full.accuracy() == 0.0
    assert scored.kept_share == 0.25
