"""A text turn on the cache of a compressed prompt, through `generate`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import one_at_a_time
from pairs import ModelPair, answer, assert_same, carried, make_pair, whole_position_ids
from tiny_models import FAMILIES, ONE_IMAGE, RAGGED, family_prompts, make_inputs
from torch import Tensor
from transformers import DynamicCache, StaticCache

pytestmark = pytest.mark.core

NEW = 4
DETAILED: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
each_family = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = family_prompts("ragged", "one_image", "one_video", "ragged_videos")


def ask(model: Any, inputs: dict[str, Any], count: int = NEW, **options: Any) -> Any:
    options = {"eos_token_id": None, "do_sample": False, **options}
    return model.generate(**inputs, max_new_tokens=count, **options)


def followed(inputs: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """The prompts with more text, ids [B, T]."""
    more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {
        name: torch.cat([value, more.get(name, torch.zeros_like(ids))], dim=1)
        if name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
        else value
        for name, value in inputs.items()
    }


def recomputed(
    pair: ModelPair, inputs: dict[str, Tensor], kept: Tensor, ids: Tensor, count: int = NEW
) -> Any:
    """The stock model's answer to all ids so far, with the dropped tokens hidden."""
    whole = followed(inputs, answer(ids, inputs))
    positions = whole_position_ids(pair.stock, whole)
    whole["attention_mask"][:, : kept.shape[1]] = kept
    return ask(pair.stock, {**whole, "position_ids": positions}, count, **DETAILED)


def kept_tokens(pair: ModelPair, inputs: dict[str, Tensor]) -> Tensor:
    kept = torch.zeros_like(inputs["input_ids"])
    for number, sample in enumerate(pair.compressed.token_compression.last.samples):
        kept[number, sample.kept_indices] = 1
    return kept


def question(count: int, seed: int) -> Tensor:
    return torch.randint(3, 40, (count, 5), generator=torch.Generator().manual_seed(seed))


def whole_mask(mask: Tensor, kept: Tensor, ids: Tensor) -> Tensor:
    return torch.cat([mask, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], dim=1)


def compressed_mask(mask: Tensor, kept: Tensor, ids: Tensor) -> Tensor:
    lengths = kept.sum(1)
    prompt = (torch.arange(int(lengths.max())) >= lengths.max() - lengths[:, None]).long()
    return torch.cat([prompt, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], dim=1)


MASKS = [
    pytest.param(make_mask, id=name)
    for name, make_mask in (
        *(("whole", whole_mask), ("compressed", compressed_mask), ("none", lambda *_: None)),
    )
]


@pytest.mark.parametrize(("family", "prompts", "make_mask"), one_at_a_time(PROMPTS, MASKS))
def test_two_text_turns_equal_recomputing(
    family: str, prompts: Any, make_mask: Callable[..., Tensor | None]
) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs(prompts, family=family)
    cache = DynamicCache()
    ids = ask(pair.compressed, inputs, **carried(cache))
    kept = kept_tokens(pair, inputs)
    for turn in range(2):
        ids = torch.cat([ids, question(len(prompts), turn)], dim=1)
        arguments = {
            "input_ids": ids,
            "attention_mask": make_mask(inputs["attention_mask"], kept, ids),
            **carried(cache),
        }
        output = ask(pair.compressed, arguments, **DETAILED)
        expected = recomputed(pair, inputs, kept, ids)
        assert torch.equal(output.sequences, expected.sequences)
        torch.testing.assert_close(
            torch.stack(output.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4
        )
        assert output.past_key_values is cache
        assert torch.equal(output.sequences[:, : ids.shape[1]], ids)
        ids = output.sequences


@each_family
def test_only_the_new_tokens(family: str) -> None:
    """With a mask of the whole sequence, as the stock model takes them."""
    pair = make_pair(family=family)
    inputs = make_inputs(RAGGED, family=family)
    cache = DynamicCache()
    ids = ask(pair.compressed, inputs, **carried(cache))
    kept = kept_tokens(pair, inputs)
    new = torch.cat([ids[:, -1:], question(len(RAGGED), 0)], dim=1)
    ids = torch.cat([ids[:, :-1], new], dim=1)
    for make_mask in (whole_mask, compressed_mask):
        arguments = {
            "input_ids": new,
            "attention_mask": make_mask(inputs["attention_mask"], kept, ids),
            **carried(copy.deepcopy(cache)),
        }
        output = ask(pair.compressed, arguments)
        expected = recomputed(pair, inputs, kept, ids).sequences
        assert torch.equal(output[:, : new.shape[1]], new)
        assert torch.equal(answer(output, arguments), expected[:, ids.shape[1] :])


@each_family
def test_a_static_cache(family: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs(RAGGED, family=family)
    text = pair.compressed.config.get_text_config()
    caches = (DynamicCache(), StaticCache(config=text, max_cache_len=300))
    answers = []
    for cache in caches:
        ids = ask(pair.compressed, inputs, **carried(cache))
        ids = torch.cat([ids, question(len(RAGGED), 0)], dim=1)
        mask = whole_mask(inputs["attention_mask"], ids, ids)
        turn = {"input_ids": ids, "attention_mask": mask, **carried(cache)}
        answers.append(ask(pair.compressed, turn))
    assert torch.equal(*answers)


@each_family
def test_a_forward_turn_after_a_generated_one(family: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs(RAGGED, family=family)
    output = ask(pair.compressed, inputs, return_dict_in_generate=True)
    kept = kept_tokens(pair, inputs)
    ids = torch.cat([output.sequences, question(len(RAGGED), 0)], dim=1)
    cache = output.past_key_values
    mask = whole_mask(inputs["attention_mask"], kept, ids)
    turn = {"input_ids": ids, "attention_mask": mask, **carried(cache)}
    ids = ask(pair.compressed, turn)
    expected = recomputed(pair, inputs, kept, ids, 1).logits[0]
    with torch.no_grad():
        logits = pair.compressed(input_ids=ids[:, -1:], **carried(cache)).logits[:, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@each_family
def test_given_position_ids(family: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs([ONE_IMAGE], family=family)
    cache = DynamicCache()
    ids = ask(pair.compressed, inputs, **carried(cache))
    ids = torch.cat([ids, question(1, 0)], dim=1)
    positions = whole_position_ids(pair.stock, followed(inputs, answer(ids, inputs)))
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = ask(pair.compressed, {**turn, **carried(copy.deepcopy(cache))}, **DETAILED)
    found = ask(
        pair.compressed,
        {**turn, "position_ids": positions, **carried(copy.deepcopy(cache))},
        **DETAILED,
    )
    assert_same(torch.stack(found.logits), torch.stack(expected.logits))
    with one_sentence(ValueError, "position_ids"):
        ask(pair.compressed, {**turn, "position_ids": positions[..., 3:], **carried(cache)})


def test_limits_count_the_whole_sequence(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    cache = DynamicCache()
    ids = torch.cat([ask(pair.compressed, inputs, **carried(cache)), question(1, 0)], dim=1)
    out = pair.compressed.generate(
        ids, max_length=ids.shape[1] + 3, eos_token_id=None, **carried(cache)
    )
    assert out.shape[1] == ids.shape[1] + 3


def test_beams_on_a_repeated_cache(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    cache = DynamicCache()
    ids = ask(pair.compressed, inputs, **carried(cache))
    kept = kept_tokens(pair, inputs)
    ids = torch.cat([ids, question(len(RAGGED), 0)], dim=1)
    cache.batch_repeat_interleave(2)
    turn = {
        "input_ids": ids,
        "attention_mask": whole_mask(inputs["attention_mask"], kept, ids),
        **carried(cache),
    }
    found = ask(pair.compressed, turn, num_beams=2)
    whole = followed(inputs, answer(ids, inputs))
    positions = whole_position_ids(pair.stock, whole)
    whole["attention_mask"][:, : kept.shape[1]] = kept
    expected = ask(pair.stock, {**whole, "position_ids": positions}, num_beams=2)
    assert torch.equal(found, expected)


def test_ids_and_masks_that_do_not_fit(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    cache = DynamicCache()
    ids = ask(pair.compressed, inputs, **carried(cache))
    longer = torch.cat([ids, question(1, 0)], dim=1)
    for mask in (torch.ones_like(longer)[:, 3:], torch.ones(1, longer.shape[1] + 2)):
        with one_sentence(ValueError, "attention_mask"):
            ask(pair.compressed, {"input_ids": longer, "attention_mask": mask, **carried(cache)})
    with one_sentence(ValueError, "input_ids"):
        ask(pair.compressed, {"input_ids": question(1, 0), **carried(cache)})
    with one_sentence(ValueError, "begin"):
        shifted = torch.cat([torch.zeros_like(longer[:, :1]), longer], dim=1)
        ask(pair.compressed, {"input_ids": shifted, **carried(cache)})
    embeds = pair.compressed.get_input_embeddings()(longer)
    with one_sentence(ValueError, "input_ids"):
        ask(pair.compressed, {"inputs_embeds": embeds, **carried(cache)})
    # A refused call leaves the cache as it was.
    assert ask(pair.compressed, {"input_ids": longer, **carried(cache)}).shape[1] > longer.shape[1]
