"""The caller's own decoding loop: forward over the prompt, then over new tokens with the cache."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import one_at_a_time
from pairs import KEEP_ALL, ModelPair, answer, assert_same, carried, make_pair
from tiny_models import ONE_IMAGE, RAGGED, family_prompts, make_inputs
from torch import Tensor
from transformers import DynamicCache, StaticCache

pytestmark = pytest.mark.core

STEPS = 5
MASK_LENGTHS = ("whole", "compressed", "none")
each_mask = pytest.mark.parametrize("mask_length", MASK_LENGTHS)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def free_run(pair: ModelPair, inputs: dict[str, Tensor]) -> Any:
    """Greedy tokens and logits of `generate`, never stopping."""
    return pair.compressed.generate(
        **inputs,
        max_new_tokens=STEPS,
        eos_token_id=None,
        suppress_tokens=None,
        return_dict_in_generate=True,
        output_logits=True,
    )


def grown_mask(
    kind: str, inputs: dict[str, Tensor], prompt_output: Any, pair: ModelPair, new: int
) -> Tensor | None:
    """The mask a caller may pass with `new` tokens after the prompt."""
    mask = inputs["attention_mask"]
    if kind == "none":
        return None
    if kind == "compressed":
        positions = torch.arange(prompt_output.logits.shape[1])
        samples = pair.compressed.token_compression.last.samples
        kept = torch.tensor([len(sample.kept_indices) for sample in samples])
        mask = (positions >= len(positions) - kept[:, None]).long()
    return torch.cat([mask, mask.new_ones(len(mask), new)], dim=1)


@pytest.mark.parametrize(
    ("family", "prompts", "mask_length"),
    one_at_a_time(
        family_prompts("one_image", "one_video", "ragged", "ragged_videos"), MASK_LENGTHS
    ),
)
def test_equals_generate(family: str, prompts: Any, mask_length: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs(prompts, family=family)
    expected = free_run(pair, inputs)
    prompt = output = pair.compressed(**inputs, use_cache=True)
    for step in range(STEPS):
        assert_same(output.logits[:, -1], expected.logits[step])
        tokens = output.logits[:, -1:].argmax(-1)
        assert torch.equal(tokens, answer(expected.sequences, inputs)[:, step : step + 1])
        output = pair.compressed(
            input_ids=tokens,
            attention_mask=grown_mask(mask_length, inputs, prompt, pair, step + 1),
            **carried(output.past_key_values),
        )


@each_mask
def test_several_new_tokens_at_once(mask_length: str) -> None:
    # In float32, products of other shapes round differently, close to the tolerance.
    pair = make_pair(dtype=torch.float64)
    inputs = make_inputs(RAGGED, dtype=torch.float64)
    expected = free_run(pair, inputs)
    tokens = answer(expected.sequences, inputs)
    prompt = pair.compressed(**inputs)
    output = pair.compressed(
        input_ids=tokens[:, :-1],
        attention_mask=grown_mask(mask_length, inputs, prompt, pair, STEPS - 1),
        **carried(prompt.past_key_values),
    )
    # `generate` gives its logits in float32.
    assert_same(output.logits.float(), torch.stack(expected.logits[1:], dim=1))


def test_embeddings_instead_of_new_ids(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    tokens = answer(free_run(pair, inputs).sequences, inputs)[:, :2]
    first, second = (pair.compressed(**inputs).past_key_values for _ in range(2))
    expected = pair.compressed(input_ids=tokens, **carried(first)).logits
    embeds = pair.compressed.get_input_embeddings()(tokens)
    actual = pair.compressed(inputs_embeds=embeds, **carried(second)).logits
    assert_same(actual, expected)


@each_mask
def test_a_prompt_repeated_for_beams(mask_length: str, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    prompt = pair.compressed(**inputs)
    cache = prompt.past_key_values
    copies = 3
    tokens = prompt.logits[:, -1].topk(copies).indices.flatten()[:, None]  # [B * copies, 1]
    mask = grown_mask(mask_length, inputs, prompt, pair, 1)
    single = [
        pair.compressed(
            input_ids=tokens[beam::copies],
            attention_mask=mask,
            **carried(copy.deepcopy(cache)),
        ).logits
        for beam in range(copies)
    ]
    cache.batch_repeat_interleave(copies)
    repeated = pair.compressed(
        input_ids=tokens,
        attention_mask=None if mask is None else mask.repeat_interleave(copies, dim=0),
        **carried(cache),
    ).logits
    assert_same(repeated, torch.stack(single, dim=1).flatten(0, 1))


def test_one_prompt_with_two_continuations(pair: ModelPair) -> None:
    """A copied cache remembers its prompt, and so does a cropped one."""
    inputs = make_inputs([ONE_IMAGE])
    prompt = pair.compressed(**inputs)
    first, second = torch.tensor([[7, 8]]), torch.tensor([[9, 3]])
    copied = copy.deepcopy(prompt.past_key_values)
    expected = pair.compressed(input_ids=second, **carried(copied)).logits
    cache = pair.compressed(input_ids=first, **carried(prompt.past_key_values)).past_key_values
    cache.crop(-first.shape[1])
    assert_same(pair.compressed(input_ids=second, **carried(cache)).logits, expected)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_the_callers_empty_cache_is_filled(kind: Any, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    config = pair.compressed.config.get_text_config()
    cache = kind(config=config) if kind is DynamicCache else kind(config, max_cache_len=200)
    expected = free_run(pair, inputs)
    output = pair.compressed(**inputs, **carried(cache))
    assert output.past_key_values is cache
    tokens = output.logits[:, -1:].argmax(-1)
    following = pair.compressed(input_ids=tokens, **carried(cache)).logits
    assert_same(following[:, -1], expected.logits[1])


@each_mask
def test_the_cache_of_generate_can_be_continued(mask_length: str, pair: ModelPair) -> None:
    """The last generated token is not in the cache yet."""
    inputs = make_inputs(RAGGED)
    longer = free_run(pair, inputs)
    shorter = pair.compressed.generate(
        **inputs,
        max_new_tokens=STEPS - 1,
        eos_token_id=None,
        suppress_tokens=None,
        return_dict_in_generate=True,
    )
    prompt = pair.compressed(**inputs)
    output = pair.compressed(
        input_ids=shorter.sequences[:, -1:],
        attention_mask=grown_mask(mask_length, inputs, prompt, pair, STEPS - 1),
        **carried(shorter.past_key_values),
    )
    assert_same(output.logits[:, -1], longer.logits[-1])


def test_keep_all_equals_stock() -> None:
    stock, compressed = make_pair(KEEP_ALL)
    inputs = make_inputs([ONE_IMAGE])
    logits = []
    for model in (stock, compressed):
        output = model(**inputs)
        for _ in range(3):
            tokens = output.logits[:, -1:].argmax(-1)
            output = model(input_ids=tokens, **carried(output.past_key_values))
        logits.append(output.logits)
    assert torch.equal(*logits)


def test_right_padded_prompts(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED, padding_side="right")
    left = make_inputs(RAGGED)
    expected = pair.compressed(**left)
    tokens = expected.logits[:, -1:].argmax(-1)
    expected = pair.compressed(input_ids=tokens, **carried(expected.past_key_values))
    prompt = pair.compressed(**inputs)
    mask = inputs["attention_mask"]
    output = pair.compressed(
        input_ids=tokens,
        attention_mask=torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
        **carried(prompt.past_key_values),
    )
    assert_same(output.logits, expected.logits)


def test_a_mask_of_another_length_is_refused(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    cache = pair.compressed(**inputs).past_key_values
    mask = torch.ones(1, inputs["input_ids"].shape[1] - 3)
    with one_sentence(ValueError, "attention_mask"):
        pair.compressed(input_ids=torch.tensor([[5]]), attention_mask=mask, **carried(cache))


def test_without_the_cache_the_prompt_runs_again(pair: ModelPair) -> None:
    """The caller passes the longer prompt, which keeps the same visual tokens."""
    inputs = make_inputs([ONE_IMAGE])
    expected = free_run(pair, inputs)
    sequences = expected.sequences[:, :-1]
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    grown = {
        **inputs,
        "input_ids": sequences,
        "attention_mask": torch.ones_like(sequences),
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new)),
    }
    mask = torch.zeros_like(sequences)
    mask[:, -new - 10 : -new - 3] = 1  # the question before the answer
    logits = pair.compressed(**grown, instruction_mask=mask).logits
    asked = torch.zeros_like(inputs["input_ids"])
    asked[:, -10:-3] = 1
    base = pair.compressed(**inputs, instruction_mask=asked)
    follow = pair.compressed(input_ids=sequences[:, -new:], **carried(base.past_key_values))
    assert_same(logits[:, -new:], follow.logits)
