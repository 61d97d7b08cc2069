"""Generation from a compressed prompt, in every decoding mode of the stock model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from matrix import one_at_a_time
from pairs import (
    QUARTER,
    ModelPair,
    answer,
    assert_same,
    carried,
    make_pair,
    masked_inputs,
    whole_position_ids,
)
from tiny_models import (
    FAMILIES,
    ONE_IMAGE,
    RAGGED,
    TURN_END,
    TWO_IMAGES,
    family_of,
    family_prompts,
    make_inputs,
    tiny_model,
)
from transformers import GenerationConfig

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs

pytestmark = pytest.mark.core

NEW = 8
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.5},
    "beams": {"num_beams": 3},
    "sampled_beams": {"num_beams": 2, "do_sample": True},
    "static_cache": {"cache_implementation": "static"},
    "sampled_sequences": {"do_sample": True, "num_return_sequences": 3},
    "beam_sequences": {"num_beams": 3, "num_return_sequences": 2},
    "no_cache": {"use_cache": False},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "no_repeats": {"no_repeat_ngram_size": 2},
}
SINGLE_SAMPLE_MODES: dict[str, dict[str, Any]] = {
    "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    "sampled_prompt_lookup": {"prompt_lookup_num_tokens": 3, "do_sample": True},
    "assistant": {"assistant_model": tiny_model(seed=1)},
    "sampled_assistant": {"assistant_model": tiny_model(seed=1), "do_sample": True},
    "compressed_assistant": {"assistant_model": compress(tiny_model(seed=1), QUARTER)},
}
each_family = pytest.mark.parametrize("family", FAMILIES)
EVERY_MODE = [
    *(pytest.param(RAGGED, options, id=name) for name, options in MODES.items()),
    *(pytest.param([TWO_IMAGES], own, id=name) for name, own in SINGLE_SAMPLE_MODES.items()),
]


def ragged_batches(*modes: str) -> Any:
    """Ragged batches of every family, and modes."""
    return pytest.mark.parametrize(
        ("family", "prompts", "mode"),
        one_at_a_time(family_prompts("ragged", "ragged_videos"), modes),
    )


def seeded(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    torch.manual_seed(11)
    return model.generate(**inputs, **{"max_new_tokens": NEW, **options})


def generated(tokens: torch.Tensor) -> torch.Tensor:
    """One sample up to and including its turn end."""
    ends = (tokens == TURN_END).nonzero().flatten()
    return tokens[: int(ends[0]) + 1] if len(ends) else tokens


@pytest.mark.parametrize(
    ("prompts", "options", "attention", "family"),
    one_at_a_time(EVERY_MODE, ["sdpa", "eager"], FAMILIES),
)
def test_equals_stock_on_prepared_inputs(
    prompts: Any, options: Any, attention: str, family: str
) -> None:
    stock, compressed = make_pair(family=family, attention=attention)
    inputs = make_inputs(prompts, family=family)
    with torch.no_grad():
        prepared = prepare_inputs(compressed, **inputs)
    expected = answer(seeded(stock, prepared, **options), prepared)
    actual = seeded(compressed, inputs, **options)
    assert torch.equal(answer(actual, inputs), expected)
    assert len(expected.unique()) > 3


@pytest.mark.parametrize(("prompts", "options"), EVERY_MODE)
def test_sequences_start_with_the_whole_prompt(prompts: Any, options: Any) -> None:
    _, compressed = make_pair()
    inputs = make_inputs(prompts)
    sequences = seeded(compressed, inputs, **options)
    copies = options.get("num_return_sequences", 1)
    prompt = inputs["input_ids"].repeat_interleave(copies, dim=0)
    assert torch.equal(sequences[:, : prompt.shape[1]], prompt)
    assert 0 < answer(sequences, inputs).shape[1] <= NEW


@ragged_batches("greedy", "beams", "static_cache", "sampling", "no_cache")
def test_equals_stock_with_dropped_tokens_hidden(mode: str, family: str, prompts: Any) -> None:
    """The reference path shares no code with the rewrite."""
    pair = make_pair(family=family)
    inputs = make_inputs(prompts, family=family)
    options = {**MODES[mode], "return_dict_in_generate": True, "output_logits": True}
    actual = seeded(pair.compressed, inputs, **options)
    expected = seeded(pair.stock, masked_inputs(pair, inputs), **options)
    assert torch.equal(actual.sequences, expected.sequences)
    assert_same(torch.stack(actual.logits), torch.stack(expected.logits))


@ragged_batches("greedy", "beams", "sampling", "sampled_sequences")
def test_cached_equals_not_cached(mode: str, family: str, prompts: Any) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs(prompts, family=family)
    options = {**MODES[mode], "return_dict_in_generate": True, "output_logits": True}
    cached = seeded(pair.compressed, inputs, **options)
    uncached = seeded(pair.compressed, inputs, **options, use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    assert_same(torch.stack(cached.logits), torch.stack(uncached.logits))
    assert cached.past_key_values is not None
    assert uncached.get("past_key_values") is None


@ragged_batches("greedy", "beams", "static_cache", "no_cache")
def test_a_sample_in_a_ragged_batch_equals_the_sample_alone(
    mode: str, family: str, prompts: Any
) -> None:
    pair = make_pair(family=family)
    options = {**MODES[mode], "return_dict_in_generate": True, "output_logits": True}
    inputs = make_inputs(prompts, family=family)
    together = seeded(pair.compressed, inputs, **options)
    for sample, prompt in enumerate(prompts):
        own = make_inputs([prompt], family=family)
        alone = seeded(pair.compressed, own, **options)
        tokens = generated(answer(alone.sequences, own)[0])
        assert torch.equal(generated(answer(together.sequences, inputs)[sample]), tokens)
        if mode != "beams":
            for step in range(len(tokens)):
                assert_same(together.logits[step][sample], alone.logits[step][0])


@pytest.mark.parametrize("mode", ["prompt_lookup", "assistant", "compressed_assistant"])
@pytest.mark.parametrize("prompt", [ONE_IMAGE, TWO_IMAGES], ids=["one_image", "two_images"])
def test_speculation_does_not_change_the_greedy_answer(
    mode: str, prompt: Any, pair: ModelPair
) -> None:
    inputs = make_inputs([prompt])
    greedy = seeded(pair.compressed, inputs, do_sample=False, max_new_tokens=20)
    speculative = {**SINGLE_SAMPLE_MODES[mode], "do_sample": False, "max_new_tokens": 20}
    assert torch.equal(seeded(pair.compressed, inputs, **speculative), greedy)


def test_the_returned_dictionary_matches_the_plain_answer(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    prepared = prepare_inputs(pair.compressed, **inputs)
    options = {
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "output_hidden_states": True,
        "num_beams": 2,
    }
    actual = seeded(pair.compressed, inputs, **options)
    expected = seeded(pair.stock, prepared, **options)
    assert torch.equal(actual.sequences, seeded(pair.compressed, inputs, num_beams=2))
    assert torch.equal(actual.sequences_scores, expected.sequences_scores)
    assert torch.equal(actual.beam_indices, expected.beam_indices)
    assert torch.equal(torch.stack(actual.scores), torch.stack(expected.scores))
    assert len(actual.hidden_states) == len(actual.scores)
    assert type(actual) is type(expected)


def test_a_custom_generate_may_return_a_dict_or_something_of_its_own(pair: ModelPair) -> None:
    def one_token(model: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        names = ("attention_mask", "position_ids", "mm_encoder_outputs", "mm_token_type_ids")
        inputs = {name: options[name] for name in names}
        output = model(input_ids, **inputs, use_cache=True)
        ids = torch.cat([input_ids, output.logits[:, -1:].argmax(-1)], dim=1)
        return {"sequences": ids, "cache": output.past_key_values}

    inputs = make_inputs([ONE_IMAGE])
    options = {"suppress_tokens": None, "do_sample": False}
    expected = pair.compressed.generate(**inputs, max_new_tokens=2, **options)
    first = pair.compressed.generate(**inputs, **options, custom_generate=one_token)
    assert torch.equal(first["sequences"], expected[:, :-1])
    # The cache in the dict goes on as any other.
    second = pair.compressed.generate(
        first["sequences"], max_new_tokens=1, **options, **carried(first["cache"])
    )
    assert torch.equal(second, expected)
    words = pair.compressed.generate(**inputs, custom_generate=lambda *_, **__: "words")
    assert words == "words"


def test_transition_scores(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    out = seeded(pair.compressed, inputs, return_dict_in_generate=True, output_scores=True)
    scores = pair.compressed.compute_transition_scores(
        out.sequences, out.scores, normalize_logits=True
    )
    expected = torch.stack(out.scores, dim=1).log_softmax(-1)
    tokens = answer(out.sequences, inputs)
    assert_same(scores, expected.gather(-1, tokens[..., None]).squeeze(-1))


def test_input_ids_may_be_positional(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    expected = seeded(pair.compressed, inputs)
    ids = inputs.pop("input_ids")
    assert torch.equal(pair.compressed.generate(ids, **inputs, max_new_tokens=NEW), expected)
    assert torch.equal(pair.compressed.generate(inputs=ids, **inputs, max_new_tokens=NEW), expected)


@pytest.mark.parametrize("positional", [False, True])
def test_a_generation_config_is_used_and_not_changed(positional: bool, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    settings = GenerationConfig(
        max_length=inputs["input_ids"].shape[1] + 5,
        num_beams=2,
        eos_token_id=TURN_END,
        pad_token_id=94,
        suppress_tokens=pair.stock.generation_config.suppress_tokens,
    )
    before = settings.to_dict()
    own_before = pair.compressed.generation_config.to_dict()
    if positional:
        ids = inputs.pop("input_ids")
        out = pair.compressed.generate(ids, settings, **inputs)
        inputs["input_ids"] = ids
    else:
        out = pair.compressed.generate(**inputs, generation_config=settings)
    assert torch.equal(out, seeded(pair.compressed, inputs, num_beams=2, max_new_tokens=5))
    assert settings.to_dict() == before
    assert pair.compressed.generation_config.to_dict() == own_before


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_padding_without_a_mask_equals_stock(ratio: float, pair: ModelPair) -> None:
    """Without a mask, the stock `generate` infers one from padding ids."""
    inputs = make_inputs(RAGGED)
    unmasked = {name: value for name, value in inputs.items() if name != "attention_mask"}
    assert torch.equal(seeded(pair.stock, unmasked), seeded(pair.stock, inputs))
    expected = seeded(pair.compressed, inputs, token_compression=ratio)
    assert torch.equal(seeded(pair.compressed, unmasked, token_compression=ratio), expected)


@pytest.mark.parametrize("axes", [3, 4])
def test_new_tokens_continue_the_given_position_ids(axes: int, pair: ModelPair) -> None:
    """They are doubled, so an answer that ignores them differs."""
    inputs = make_inputs(RAGGED)
    positions = whole_position_ids(pair.stock, inputs)
    positions[-3:] *= 2
    out = seeded(pair.compressed, inputs, position_ids=positions[-axes:])
    hidden = {**masked_inputs(pair, inputs), "position_ids": positions}
    assert torch.equal(out, seeded(pair.stock, hidden))
    assert not torch.equal(out, seeded(pair.compressed, inputs))


def test_scoring_draws_no_random_numbers_of_the_caller() -> None:
    """The random scorer must not draw from the generator that sampling uses."""
    stock, compressed = make_pair(
        TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer="random")
    )
    inputs = make_inputs(RAGGED)
    prepared = prepare_inputs(compressed, **inputs)
    expected = answer(seeded(stock, prepared, do_sample=True), prepared)
    assert torch.equal(answer(seeded(compressed, inputs, do_sample=True), inputs), expected)


@each_family
def test_the_vision_part_runs_once(family: str) -> None:
    pair = make_pair(family=family)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    family_of(pair.stock).visual_tower(pair.compressed).register_forward_hook(count)
    inputs = make_inputs(RAGGED, family=family)
    for options in (
        {},
        {"num_beams": 3},
        {"use_cache": False},
        {"num_return_sequences": 2, "do_sample": True},
    ):
        calls = 0
        seeded(pair.compressed, inputs, **options)
        assert calls == 1


def test_later_calls_do_not_depend_on_earlier_ones(pair: ModelPair) -> None:
    """Disabled, text-only and other calls in between change nothing."""
    inputs = make_inputs([ONE_IMAGE])
    expected = seeded(pair.compressed, inputs)
    seeded(pair.compressed, make_inputs([TWO_IMAGES]))
    with pair.compressed.token_compression.disabled():
        seeded(pair.compressed, make_inputs([TWO_IMAGES]))
        assert torch.equal(seeded(pair.compressed, inputs), seeded(pair.stock, inputs))
    seeded(pair.compressed, make_inputs([(5,)]))
    assert torch.equal(seeded(pair.compressed, inputs), expected)
