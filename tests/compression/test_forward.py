"""A forward over a compressed prompt, against three independent references."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import each_attention
from pairs import (
    QUARTER,
    ModelPair,
    answer,
    assert_same,
    make_pair,
    masked_inputs,
    sample_states,
    whole_position_ids,
)
from tiny_models import (
    FAMILIES,
    ONE_IMAGE,
    RAGGED,
    TEXT_ONLY,
    family_prompts,
    make_inputs,
    tiny_base_model,
)
from torch import Tensor

from hf_token_compress import Scorer, TokenCompressionConfig, compress, prepare_inputs

pytestmark = pytest.mark.core

each_family = pytest.mark.parametrize("family", FAMILIES)
each_prompt = pytest.mark.parametrize(
    ("family", "prompts"),
    [case for case in family_prompts() if case.values[1] != (TEXT_ONLY,)],
)
each_side = pytest.mark.parametrize("padding_side", ["left", "right"])


@each_prompt
@each_attention
def test_equals_stock_on_prepared_inputs(family: str, prompts: Any, attention: str) -> None:
    stock, compressed = make_pair(family=family, attention=attention)
    inputs = make_inputs(prompts, family=family)
    expected = stock(**prepare_inputs(compressed, **inputs)).logits
    assert torch.equal(compressed(**inputs).logits, expected)
    assert expected.shape[1] < inputs["input_ids"].shape[1]


@each_prompt
@each_side
@each_attention
def test_equals_stock_with_dropped_tokens_hidden(
    family: str, prompts: Any, padding_side: Any, attention: str
) -> None:
    pair = make_pair(family=family, attention=attention)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    actual = pair.compressed(**inputs).logits
    expected = pair.stock(**masked_inputs(pair, inputs)).logits
    samples = pair.compressed.token_compression.last.samples
    for number, sample in enumerate(samples):
        kept = sample_states(actual, number, inputs, samples)
        assert_same(kept, expected[number, sample.kept_indices])


@each_family
@each_side
def test_base_model_equals_stock_with_dropped_tokens_hidden(padding_side: Any, family: str) -> None:
    stock = tiny_base_model(family=family)
    compressed = compress(copy.deepcopy(stock), QUARTER)
    inputs = make_inputs(RAGGED, family=family, padding_side=padding_side)
    actual = compressed(**inputs).last_hidden_state
    hidden = masked_inputs(ModelPair(stock, compressed), inputs)
    expected = stock(**hidden).last_hidden_state
    assert actual.shape == expected.shape
    for number, sample in enumerate(compressed.token_compression.last.samples):
        kept = actual[number, sample.kept_indices]
        assert_same(kept, expected[number, sample.kept_indices])


@pytest.mark.parametrize(("family", "prompts"), family_prompts("ragged", "ragged_videos"))
@each_side
@pytest.mark.parametrize("scorer", ["attention", "random", "uniform"])
def test_a_sample_in_a_ragged_batch_equals_the_sample_alone(
    padding_side: Any, scorer: str, family: str, prompts: Any
) -> None:
    _, compressed = make_pair(
        TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer=scorer),
        family=family,
    )
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    logits = compressed(**inputs).logits
    samples = compressed.token_compression.last.samples
    for number, prompt in enumerate(prompts):
        alone = compressed(**make_inputs([prompt], family=family)).logits[0]
        assert_same(sample_states(logits, number, inputs, samples), alone)


def test_prepared_inputs_hold_the_kept_tokens_positions_and_features() -> None:
    stock, compressed = make_pair()
    inputs = make_inputs(RAGGED)
    prepared = prepare_inputs(compressed, **inputs)
    positions = whole_position_ids(stock, inputs)
    features = iter(
        torch.cat(
            stock.get_image_features(
                inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
            ).pooler_output
        )
    )
    kept_features = []
    for number, sample in enumerate(compressed.token_compression.last.samples):
        kept = sample.kept_indices
        real = prepared["attention_mask"][number].bool()
        assert torch.equal(prepared["input_ids"][number][real], inputs["input_ids"][number, kept])
        types = inputs["mm_token_type_ids"][number, kept]
        assert torch.equal(prepared["mm_token_type_ids"][number][real], types)
        assert torch.equal(
            prepared["position_ids"][1:, number][:, real], positions[1:, number, kept]
        )
        text_order = torch.arange(len(kept))
        assert torch.equal(prepared["position_ids"][0, number][real], text_order)
        own = [next(features) for _ in sample.visual_indices]
        kept_features += [own[i] for i in sample.kept_visual.nonzero().flatten().tolist()]
    given = torch.cat(list(prepared["mm_encoder_outputs"]["image"].pooler_output))
    assert torch.equal(given, torch.stack(kept_features))
    assert "pixel_values" not in prepared


def test_an_unpadded_prompt_needs_no_mask() -> None:
    _, compressed = make_pair()
    inputs = make_inputs([ONE_IMAGE])
    expected = compressed(**inputs).logits
    del inputs["attention_mask"]
    assert_same(compressed(**inputs).logits, expected)


def test_the_callers_inputs_are_not_changed() -> None:
    _, compressed = make_pair()
    inputs = make_inputs(RAGGED)
    before = {name: value.clone() for name, value in inputs.items()}
    compressed(**inputs)
    compressed.generate(**inputs, max_new_tokens=2)
    assert inputs.keys() == before.keys()
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_positional_arguments_and_tuples_work_as_in_the_stock_class() -> None:
    _, compressed = make_pair()
    inputs = make_inputs([ONE_IMAGE])
    expected = compressed(**inputs).logits
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    logits, *_ = compressed(ids, mask, **inputs, return_dict=False)
    assert torch.equal(logits, expected)


def test_logits_to_keep() -> None:
    _, compressed = make_pair()
    inputs = make_inputs(RAGGED)
    expected = compressed(**inputs).logits[:, -1:]
    assert_same(compressed(**inputs, logits_to_keep=1).logits, expected)


@each_side
@pytest.mark.parametrize("more", [0, 300])
def test_logits_to_keep_may_be_more_than_the_tokens_that_stay(padding_side: Any, more: int) -> None:
    """Columns after the images then stay where they are, counted from the end."""
    _, compressed = make_pair()
    inputs = make_inputs(RAGGED, padding_side=padding_side)
    mask = inputs["attention_mask"]
    logits = compressed(**inputs, logits_to_keep=mask.shape[1] + more).logits
    for sample, prompt in enumerate(RAGGED):
        last = int(mask[sample].nonzero()[-1]) - mask.shape[1]
        assert_same(logits[sample, last], compressed(**make_inputs([prompt])).logits[0, -1])


def test_a_prompt_that_ends_in_its_image_keeps_its_last_token() -> None:
    """The next token is predicted from it, so it stays whatever its score."""
    pair = make_pair()
    inputs = make_inputs([(4, (6, 8))])
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        inputs[name] = inputs[name][:, :-1]  # without the end mark of the image

    class FirstTokens(Scorer):
        def score(self, prompt: Any) -> Tensor:
            return -torch.arange(prompt.input_ids.shape[1]).float()[None]

    pair.compressed.token_compression.scorer = FirstTokens()
    logits = pair.compressed(**inputs).logits
    sample = pair.compressed.token_compression.last.samples[0]
    assert sample.kept_visual[:12].all()
    assert sample.kept_visual[-1]
    assert sample.visual_tokens_after == 13
    assert_same(logits[0, -1], pair.stock(**masked_inputs(pair, inputs)).logits[0, -1])


@pytest.mark.parametrize("scorer", ["gated_fusion", "uniform"])
def test_the_default_device_does_not_matter(scorer: str) -> None:
    """Notebooks set it, and the host's own tensors must stay on the CPU."""
    model = make_pair().compressed
    compress(model, {"retention_ratio": 0.25, "scorer": scorer})
    inputs = make_inputs(RAGGED, padding_side="right")
    expected = prepare_inputs(model, **inputs)
    with torch.device("meta"):
        found = prepare_inputs(model, **inputs)
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert torch.equal(found[name], expected[name])


def test_indices_of_logits_to_keep_are_refused() -> None:
    """They would point into a prompt that the language model does not see."""
    _, compressed = make_pair()
    with one_sentence(ValueError, "logits_to_keep"):
        compressed(**make_inputs([ONE_IMAGE]), logits_to_keep=torch.tensor([3]))


def test_two_dimensional_position_ids_are_kept() -> None:
    """Position ids [B, S] without a mask: their gaps must not look like packing."""
    pair = make_pair()
    inputs = make_inputs([ONE_IMAGE])
    mask = inputs.pop("attention_mask")
    positions = torch.arange(mask.shape[1])[None]
    actual = pair.compressed(**inputs, position_ids=positions).logits
    kept = pair.compressed.token_compression.last.samples[0].kept_indices
    hidden = torch.zeros_like(mask).index_fill(1, kept, 1)
    axes = positions.expand(4, 1, -1)
    expected = pair.stock(**inputs, attention_mask=hidden, position_ids=axes).logits
    assert_same(actual[0], expected[0, kept])


@pytest.mark.parametrize("axes", [3, 4])
def test_position_ids_are_kept(axes: int) -> None:
    pair = make_pair()
    inputs = make_inputs(RAGGED)
    positions = whole_position_ids(pair.stock, inputs)
    shifted = positions[-axes:].clone()
    shifted[-3:] *= 2
    actual = pair.compressed(**inputs, position_ids=shifted).logits
    hidden = masked_inputs(pair, inputs)
    hidden["position_ids"] = torch.cat([positions[:1], shifted[-3:]])
    expected = pair.stock(**hidden).logits
    samples = pair.compressed.token_compression.last.samples
    for number, sample in enumerate(samples):
        kept = sample_states(actual, number, inputs, samples)
        assert_same(kept, expected[number, sample.kept_indices])


@each_family
def test_text_only_prompts_equal_stock(family: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs([TEXT_ONLY], family=family)
    assert torch.equal(pair.compressed(**inputs).logits, pair.stock(**inputs).logits)
    out = pair.compressed.generate(**inputs, max_new_tokens=5)
    assert torch.equal(out, pair.stock.generate(**inputs, max_new_tokens=5))
    assert answer(out, inputs).shape[1] > 0
    assert pair.compressed.token_compression.last is None
