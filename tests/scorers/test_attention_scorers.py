"""Scores from queries and keys of layer 0, against the maps of stock eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eager_attention import eager_maps
from made_prompts import reading_of
from matrix import full_only
from tiny_models import RAGGED, Prompt, make_inputs, tiny_family, tiny_model
from torch import Tensor

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers import build_scorer

pytestmark = pytest.mark.core

PROMPTS: tuple[Prompt, ...] = (*RAGGED, (3, (4, 4)))
"""The last one ends with an image."""

each_family = pytest.mark.parametrize(
    "family",
    # With the fast path, with and without axes of positions, and with the probe.
    ["qwen2_vl", "llava_onevision", "gemma3", full_only("vila15"), full_only("paligemma")],
)


def scores_of(scorer: str, family: str, inputs: dict[str, Tensor], **options: Any) -> list[Tensor]:
    """Scores of the visual tokens of each prompt, [N] each."""
    config = {"scorer": scorer, "scorer_options": options, "min_visual_tokens": 0}
    model = compress(tiny_model(family=family), config)
    prepare_inputs(model, **inputs)
    return [sample.scores for sample in model.token_compression.last.samples]


def in_one_place(family: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs with all tokens at position 0, which RoPE does not turn."""
    ids = tiny_family(family).position_ids(tiny_model(family=family), inputs)
    return {**inputs, "position_ids": torch.zeros_like(ids)}


@each_family
def test_attention_without_rope_is_that_of_tokens_in_one_place(family: str) -> None:
    inputs = make_inputs(RAGGED, family=family)
    stock = tiny_model(family=family)
    prompt, _ = read_prompt(stock, inputs)
    maps = eager_maps(stock, in_one_place(family, inputs))[0].mean(1)  # [B, S, S]
    found = scores_of("attention_without_rope", family, inputs)
    for sample, scores in enumerate(found):
        own = maps[sample][prompt.query_mask[sample]].mean(0)[prompt.visual_mask[sample]]
        torch.testing.assert_close(scores, own, rtol=1e-4, atol=1e-7)


@each_family
def test_hawk_is_the_normalised_mean_product_of_each_head(family: str) -> None:
    """The test above checks the layer's queries and keys."""
    inputs = make_inputs(RAGGED, family=family)
    stock = tiny_model(family=family)
    weights = [0.5, -1.0, 2.0, 0.0, 1.0, 3.0]
    with torch.no_grad():
        reading = reading_of(stock, inputs)
        prompt, layer = reading.prompt, reading.scoring_layer(0, rotary=False)
    for sample, scores in enumerate(scores_of("hawk", family, inputs, head_weights=weights)):
        total = torch.zeros(len(scores))
        keys = layer.key[sample, prompt.visual_mask[sample]].transpose(0, 1)  # [2, N, d]
        queries = layer.query[layer.sample == sample].transpose(0, 1)  # [6, R, d]
        for head, weight in enumerate(weights):
            products = torch.stack([keys[head // 3] @ query for query in queries[head]])  # [R, N]
            mean = products.mean(0)
            total += weight * mean / mean.square().sum().sqrt() if len(scores) else 0
        torch.testing.assert_close(scores, total, rtol=1e-3, atol=1e-5)


def test_hawk_takes_a_weight_for_each_head() -> None:
    with pytest.raises(ValueError, match="head_weights has 2 weights, but layer 0 has 6 query"):
        scores_of("hawk", "qwen2_vl", make_inputs(RAGGED), head_weights=[1, 2])
    with pytest.raises(TypeError, match="head_weights must be a number, not str"):
        build_scorer("hawk", {"head_weights": ["a"]})


@pytest.mark.parametrize("depth", [0, full_only(1)])
@each_family
def test_priortr_compares_with_the_token_behind_the_image(family: str, depth: int) -> None:
    inputs = make_inputs(PROMPTS, family=family)
    stock = tiny_model(family=family)
    prompt, _ = read_prompt(stock, inputs)
    maps = eager_maps(stock, inputs)[depth]  # [B, heads, S, S]
    found = scores_of("priortr", family, inputs, scoring_depth=depth)
    for sample, scores in enumerate(found):
        visual = prompt.visual_mask[sample].nonzero().flatten()
        if not len(visual):
            continue
        shares = maps[sample][..., visual]  # [heads, S, N]
        shares = shares / shares.sum(-1, keepdim=True)
        behind = min(int(visual[-1]) + 1, maps.shape[-1] - 1)
        conditioned = shares[:, prompt.query_mask[sample]].mean((0, 1))
        prior = shares[:, behind].mean(0)
        expected = conditioned * (conditioned / prior).log()
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-6)
