"""Scores from queries and keys of layer 0, against the maps of stock eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eager_attention import eager_maps
from errors import one_sentence
from made_prompts import reading_of
from matrix import full_only
from tiny_models import RAGGED, Prompt, make_inputs, marked_families, tiny_family, tiny_model
from torch import Tensor

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers import build_scorer

pytestmark = pytest.mark.core

PROMPTS: tuple[Prompt, ...] = (*RAGGED, (3, (4, 4)))
"""The last one ends with an image."""

# With the fast path, with and without axes of positions, and with the probe.
CHOSEN = ("qwen2_vl", "llava_onevision", "gemma3")
each_family = pytest.mark.parametrize("family", CHOSEN)


def all_families() -> list[Any]:
    """Every family, by default only the chosen ones."""
    return [
        parameter if parameter.values[0] in CHOSEN else full_only(*parameter.values)
        for parameter in marked_families()
        if not parameter.marks
    ]


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


@pytest.mark.parametrize("family", all_families())
def test_attention_without_rope_is_that_of_tokens_in_one_place(family: str) -> None:
    maker = tiny_family(family)
    inputs = make_inputs(maker.prompts["ragged"], family=family)
    stock = tiny_model(family=family)
    prompt, _ = read_prompt(stock, inputs)
    found = eager_maps(stock, in_one_place(family, inputs), maker.attention_layers)
    maps = found[min(found)].mean(1)  # [B, S, S]
    for sample, scores in enumerate(scores_of("attention_without_rope", family, inputs)):
        own = maps[sample][prompt.query_mask[sample]].mean(0)[prompt.visual_mask[sample]]
        torch.testing.assert_close(scores, own, rtol=1e-4, atol=1e-7)


def test_a_decoder_that_counts_positions_itself_has_rope() -> None:
    model = tiny_model(family="llava_onevision")
    model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "position_ids": None}), with_kwargs=True
    )
    compress(model, {"scorer": "attention_without_rope", "min_visual_tokens": 0})
    with one_sentence(ValueError, "counts positions by itself"):
        prepare_inputs(model, **make_inputs(RAGGED, family="llava_onevision"))


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
    with one_sentence(TypeError, "head_weights must be a list of numbers", "float"):
        build_scorer("hawk", {"head_weights": 1.0})


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
