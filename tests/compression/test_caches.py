"""A cache that a compressed prompt filled, in the hands of the caller."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import QUARTER, ModelPair, answer, assert_same, carried, make_pair
from tiny_models import FAMILIES, IMAGE, ONE_IMAGE, RAGGED, family_prompts, make_inputs
from torch import Tensor
from transformers import CompileConfig, DynamicCache, StaticCache, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from hf_token_compress import compress

pytestmark = pytest.mark.core

STEPS = 4
each_family = pytest.mark.parametrize("family", FAMILIES)
each_kind = pytest.mark.parametrize("kind", ["dynamic", "static"])
each_ragged_batch = pytest.mark.parametrize(
    ("family", "prompts"), family_prompts("ragged", "ragged_videos")
)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def new_cache(model: Any, kind: str) -> Any:
    config = model.config.get_text_config()
    return DynamicCache() if kind == "dynamic" else StaticCache(config, max_cache_len=300)


def never_ending(model: Any, inputs: dict[str, Any], count: int = STEPS, **options: Any) -> Any:
    options = {"eos_token_id": None, "suppress_tokens": None, "do_sample": False, **options}
    return model.generate(**inputs, max_new_tokens=count, **options)


def text_prompts(count: int) -> dict[str, Tensor]:
    ids = torch.randint(3, 40, (count, 7), generator=torch.Generator().manual_seed(count))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def grown(mask: Tensor, new: int) -> Tensor:
    return torch.cat([mask, mask.new_ones(len(mask), new)], dim=1)


@each_kind
@each_ragged_batch
def test_generate_returns_ids_and_the_given_cache_goes_on(
    family: str, prompts: Any, kind: str
) -> None:
    model = make_pair(family=family).compressed
    inputs = make_inputs(prompts, family=family)
    detailed = {"return_dict_in_generate": True, "output_logits": True}
    expected = never_ending(model, inputs, STEPS + 1, **detailed).logits[-1]
    cache = new_cache(model, kind)
    ids = never_ending(model, inputs, **carried(cache))
    assert isinstance(ids, Tensor)
    masks = (None, grown(inputs["attention_mask"], STEPS)) if kind == "dynamic" else (None,)
    for mask in masks:
        output = model(input_ids=ids[:, -1:], attention_mask=mask, **carried(copy.deepcopy(cache)))
        assert_same(output.logits[:, -1], expected)


@each_family
def test_a_cache_of_beams_goes_on(family: str) -> None:
    model = make_pair(family=family).compressed
    inputs = make_inputs(RAGGED, family=family)
    options = {"num_beams": 2, "num_return_sequences": 2, "return_dict_in_generate": True}
    output = never_ending(model, inputs, **options)
    chosen = output.past_key_values
    following = torch.full((2 * len(RAGGED), 1), 5)
    logits = model(input_ids=following, **carried(copy.deepcopy(chosen))).logits
    for row in range(2 * len(RAGGED)):
        alone = copy.deepcopy(chosen)
        alone.batch_select_indices(torch.tensor([row]))
        assert_same(model(input_ids=following[:1], **carried(alone)).logits, logits[row : row + 1])


def test_an_interrupted_generate_leaves_a_cache_that_goes_on(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    calls = 0

    def interrupt(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return torch.zeros(len(RAGGED), dtype=torch.bool)

    cache, expected = DynamicCache(), DynamicCache()
    with pytest.raises(KeyboardInterrupt):
        never_ending(
            pair.compressed,
            inputs,
            stopping_criteria=StoppingCriteriaList([interrupt]),
            **carried(cache),
        )
    never_ending(pair.compressed, inputs, 2, **carried(expected))
    token = torch.full((len(RAGGED), 1), 5)
    found, wanted = (
        pair.compressed(input_ids=token, **carried(c)).logits for c in (cache, expected)
    )
    assert_same(found, wanted)


@each_kind
@pytest.mark.parametrize("way", ["generate", "forward"])
@each_family
def test_a_reset_cache_has_forgotten(family: str, way: str, kind: str) -> None:
    model = make_pair(family=family).compressed
    inputs = make_inputs(RAGGED, family=family)
    cache = new_cache(model, kind)
    layer_class = type(new_cache(model, "static").layers[0]) if kind == "static" else DynamicLayer
    for following in (text_prompts(len(RAGGED)), make_inputs(RAGGED, family=family, seed=1)):
        if way == "generate":
            never_ending(model, inputs, **carried(cache))
        else:
            model(**inputs, **carried(cache))
        assert type(cache.layers[0]) is not layer_class
        cache.reset()
        assert type(cache.layers[0]) is layer_class
        options = {"return_dict_in_generate": True, "output_logits": True}
        expected = never_ending(model, following, **options)
        found = never_ending(model, following, **options, **carried(cache))
        assert torch.equal(found.sequences, expected.sequences)
        assert_same(torch.stack(found.logits), torch.stack(expected.logits))
        cache.reset()


@each_ragged_batch
@pytest.mark.parametrize("with_mask", [False, True])
def test_selected_reordered_and_repeated_samples(
    family: str, prompts: Any, with_mask: bool
) -> None:
    model = make_pair(family=family).compressed
    inputs = make_inputs(prompts, family=family)
    output = model(**inputs, use_cache=True)
    tokens = output.logits[:, -1:].argmax(-1)
    mask = grown(inputs["attention_mask"], 1)

    def decode(cache: Any, samples: Tensor) -> Tensor:
        logits: Tensor = model(
            input_ids=tokens[samples],
            attention_mask=mask[samples] if with_mask else None,
            **carried(cache),
        ).logits
        return logits

    count = len(prompts)
    whole = decode(copy.deepcopy(output.past_key_values), torch.arange(count))
    reverse = torch.arange(count).flip(0)
    for samples, change in (
        (torch.tensor([0]), lambda cache: cache.batch_select_indices(torch.tensor([0]))),
        (torch.tensor([count - 1]), lambda cache: cache.batch_select_indices([count - 1])),
        (reverse[:-1], lambda cache: cache.batch_select_indices(reverse[:-1])),
        (reverse, lambda cache: cache.reorder_cache(reverse)),
        (
            torch.arange(count).repeat_interleave(2),
            lambda cache: cache.batch_repeat_interleave(2),
        ),
        (
            reverse.repeat_interleave(2)[1:],
            lambda cache: (
                cache.reorder_cache(reverse),
                cache.batch_repeat_interleave(2),
                cache.batch_select_indices(torch.arange(1, 2 * count)),
            ),
        ),
    ):
        cache = copy.deepcopy(output.past_key_values)
        change(cache)
        assert_same(decode(cache, samples), whole[samples])


@each_ragged_batch
def test_a_cache_cropped_into_the_prompt(family: str, prompts: Any) -> None:
    """The tokens that were cropped give the same logits once more."""
    model = make_pair(family=family).compressed
    inputs = make_inputs(prompts, family=family)
    output = model(**inputs, use_cache=True)
    last = inputs["input_ids"][:, -2:]
    for mask in (None, inputs["attention_mask"]):
        cache = copy.deepcopy(output.past_key_values)
        model(input_ids=last, **carried(cache))
        cache.crop(-4)
        again = model(input_ids=last, attention_mask=mask, **carried(cache))
        assert_same(again.logits, output.logits[:, -2:])
        # And the cache goes on from there.
        token = torch.full((len(prompts), 1), 5)
        expected = model(input_ids=token, **carried(copy.deepcopy(output.past_key_values)))
        whole = None if mask is None else grown(mask, 1)
        found = model(input_ids=token, attention_mask=whole, **carried(cache))
        assert_same(found.logits, expected.logits)


def test_a_cache_cropped_into_the_image(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    output = pair.compressed(**inputs, use_cache=True)
    (sample,) = output.compression_report.samples
    cache = output.past_key_values
    cache.crop(-15)
    end = int(sample.kept_indices[-16]) + 1
    assert inputs["input_ids"][0, end - 1] == IMAGE
    token = torch.tensor([[5]])
    expected = pair.compressed(input_ids=token, **carried(copy.deepcopy(cache))).logits
    mask = torch.ones(1, end + 1, dtype=torch.long)
    found = pair.compressed(input_ids=token, attention_mask=mask, **carried(cache)).logits
    assert_same(found, expected)


def test_a_cache_cropped_to_nothing_has_forgotten(pair: ModelPair) -> None:
    cache = pair.compressed(**make_inputs([ONE_IMAGE])).past_key_values
    cache.crop(-cache.get_seq_length())
    text = text_prompts(1)
    assert_same(pair.compressed(**text, **carried(cache)).logits, pair.compressed(**text).logits)


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))],
    ids=["deepcopy", "pickle"],
)
@each_kind
def test_copies_of_a_cache(kind: str, clone: Any, pair: ModelPair) -> None:
    cache = new_cache(pair.compressed, kind)
    pair.compressed(**make_inputs(RAGGED), **carried(cache))
    token = torch.full((len(RAGGED), 1), 5)
    copied = clone(cache)
    assert type(copied.layers[0]) is type(cache.layers[0])
    expected = pair.compressed(input_ids=token, **carried(cache)).logits
    assert_same(pair.compressed(input_ids=token, **carried(copied)).logits, expected)
    copied.reset()
    text = text_prompts(len(RAGGED))
    assert_same(
        pair.compressed(**text, **carried(copied)).logits[:, -1],
        pair.compressed(**text).logits[:, -1],
    )


def test_other_caches_keep_their_classes(pair: ModelPair) -> None:
    cache = pair.compressed(**make_inputs([ONE_IMAGE])).past_key_values
    assert type(cache) is DynamicCache
    assert all(type(layer) is DynamicLayer for layer in cache.layers[1:])
    other = pair.compressed(**text_prompts(1)).past_key_values
    assert all(type(layer) is DynamicLayer for layer in other.layers)


@pytest.mark.parametrize("batch", [3, 5])
def test_other_samples_are_refused(batch: int, pair: ModelPair) -> None:
    cache = pair.compressed(**make_inputs(RAGGED)).past_key_values
    assert len(RAGGED) == 4
    with one_sentence(ValueError, "samples"):
        pair.compressed(input_ids=torch.full((batch, 1), 5), **carried(cache))


def test_position_ids_of_another_length_are_refused(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    cache = pair.compressed(**inputs).past_key_values
    positions = torch.zeros(3, 1, inputs["input_ids"].shape[1] - 3, dtype=torch.long)
    with one_sentence(ValueError, "position_ids"):
        pair.compressed(input_ids=torch.tensor([[5]]), position_ids=positions, **carried(cache))


@each_family
def test_decoding_compiles_without_graph_breaks(family: str) -> None:
    """With a static cache, as the stock model does."""
    model = compress(make_pair(family=family).stock, QUARTER)
    inputs = make_inputs([ONE_IMAGE], family=family)
    expected = never_ending(model, inputs)
    config = CompileConfig(fullgraph=True, backend="eager", mode=None)
    config._compile_all_devices = True
    torch._dynamo.reset()
    found = never_ending(model, inputs, cache_implementation="static", compile_config=config)
    assert torch.equal(answer(found, inputs), answer(expected, inputs))
