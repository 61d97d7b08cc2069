"""A next turn with a new image, on a cache that is already filled."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from conversation import ENDLESS, Conversation, extended, logits_of, text
from errors import one_sentence
from matrix import full_only
from moved_positions import moved_up
from packaging.version import Version
from pairs import QUARTER, answer, assert_same, carried, make_pair, whole_position_ids
from tiny_models import (
    FAMILIES,
    ONE_IMAGE,
    ONE_VIDEO,
    TEXT_ONLY,
    make_inputs,
    marked_families,
    tiny_family,
)
from torch import Tensor
from transformers import DynamicCache, StaticCache

from hf_token_compress import prepare_inputs

pytestmark = pytest.mark.core

CHUNKS_CARRY_FEATURES = Version(transformers.__version__) >= Version("5.23.0")
SECOND_IMAGE = (3, (6, 8), 5, "end", 2)
QUESTION = (5, "end", 2)
CHAT = ([ONE_IMAGE], [QUESTION], [SECOND_IMAGE], [QUESTION], [QUESTION])
NO_TURNS = {
    "ernie4_5_vl_moe": "the stock model does not continue a cache",
    "hunyuan_vl": "a new image needs position ids",
    "paligemma": "a prompt attends to later text too, which no cache can know",
}
# Both samples have one image, in different turns.
FIRST, SECOND = [ONE_IMAGE, TEXT_ONLY], [QUESTION, SECOND_IMAGE]
each_family = pytest.mark.parametrize(
    "family", ["qwen2_vl", *(full_only(name) for name in FAMILIES if name != "qwen2_vl")]
)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["dynamic", full_only("static"), full_only(None)], ids=["dynamic", "static", "uncached"]
)
@pytest.mark.parametrize("family", marked_families())
def test_five_turns_equal_recomputing(family: str, kind: str | None) -> None:
    """Images in turns one and three."""
    if reason := tiny_family(family).hiding_differs or NO_TURNS.get(family):
        pytest.skip(reason)
    if family == "gemma3" and not CHUNKS_CARRY_FEATURES:
        pytest.skip("generate reads token types of new tokens as those of the first")
    if kind == "static" and family in ("gemma3", "gemma4"):
        pytest.skip("the stock model masks a new image wrongly in a filled static cache")
    chat = Conversation(make_pair(family=family), family)
    model = chat.pair.compressed
    cache = StaticCache(model.config, 300) if kind == "static" else DynamicCache()
    for number, prompts in enumerate(CHAT):
        start = chat.kept.shape[1]
        chat.say(prompts, seed=number)
        if kind is None:
            inputs, start = chat.everything(), 0
        else:
            inputs = {**chat.tokens, **chat.visuals, **carried(cache)}
        output = model.generate(**inputs, **ENDLESS)
        if chat.visuals or kind is None:
            chat.drop(output.compression_report.samples, start)
        # Every turn depends on those before it.
        if number in (2, 4):
            expected = chat.recomputed(0)
            assert torch.equal(output.sequences, expected.sequences)
            assert_close(logits_of(output), logits_of(expected))
            assert chat.kept.sum() < chat.kept.numel()
        chat.hear(answer(output.sequences, chat.tokens))


def assert_recomputed(output: Any, chat: Conversation, **options: Any) -> None:
    """Every sample of the batch answers as it would alone, recomputed by the stock model."""
    count = len(output.sequences)
    for number in range(count):
        expected = chat.recomputed(number, **options)
        assert_close(logits_of(output)[number], logits_of(expected)[0])


def begin(
    family: str, first: Any, cache: Any = None, way: str = "generate", **options: Any
) -> tuple[Conversation, Any]:
    """A conversation after its first turn, and its cache."""
    chat = Conversation(make_pair(family=family), family)
    model = chat.pair.compressed
    inputs = {**chat.say(first), **carried(DynamicCache() if cache is None else cache)}
    if way == "forward":
        with torch.no_grad():
            output = model(**inputs)
        chat.hear(output.logits[:, -1:].argmax(-1))
    else:
        output = model.generate(**inputs, **{**ENDLESS, **options})
        chat.hear(answer(output.sequences, chat.tokens))
    if model.token_compression.last is not None:
        answered = chat.kept.clone()
        chat.drop(model.token_compression.last.samples)
        chat.kept[:, inputs["input_ids"].shape[1] :] = answered[:, inputs["input_ids"].shape[1] :]
    return chat, output.past_key_values


def of_last(tokens: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The last tokens alone, with a mask of the whole sequence."""
    last = {name: own[:, -count:] for name, own in tokens.items()}
    return {**last, "attention_mask": tokens["attention_mask"]}


@each_family
def test_every_way_to_pass_a_turn(family: str) -> None:
    """The whole sequence or only its new tokens, all images or only the new ones."""
    chat, cache = begin(family, FIRST)
    model, start = chat.pair.compressed, chat.kept.shape[1]
    first = make_inputs(FIRST, family=family)
    alone = chat.say(SECOND, seed=1)
    new = 1 + chat.kept.shape[1] - start
    all_visuals = {name: torch.cat([first[name], own]) for name, own in chat.visuals.items()}
    ways = [
        {**chat.tokens, **chat.visuals},
        {**chat.tokens, **all_visuals},
        {**of_last(chat.tokens, new), **chat.visuals},
    ]
    outputs = [
        model.generate(**inputs, **carried(copy.deepcopy(cache)), **ENDLESS) for inputs in ways
    ]
    chat.drop(outputs[0].compression_report.samples, start)
    assert_recomputed(outputs[0], chat)
    for output, offset in zip(outputs[1:], (0, start - 1), strict=True):
        assert torch.equal(logits_of(output), logits_of(outputs[0]))
        samples = zip(
            output.compression_report.samples, outputs[0].compression_report.samples, strict=True
        )
        for own, other in samples:
            assert torch.equal(offset + own.kept_indices, other.kept_indices)
            assert torch.equal(offset + own.visual_indices, other.visual_indices)
    # A forward counts padding too, unless it gets position ids.
    positions = whole_position_ids(chat.pair.stock, ways[1])
    for given in (positions, positions[..., -new:]):
        inputs = {**ways[2], "position_ids": given, **carried(copy.deepcopy(cache))}
        with torch.no_grad():
            logits = model(**inputs).logits[:, -1]
        assert_same(logits, logits_of(outputs[0])[:, 0])
    # Which tokens are the instruction may be said of the whole sequence too.
    asked = torch.zeros_like(chat.tokens["input_ids"], dtype=torch.bool)
    asked[:, -4] = True
    kept = [
        model.generate(**inputs, instruction_mask=mask, **carried(copy.deepcopy(cache)), **ENDLESS)
        .compression_report.samples[1]
        .kept_visual
        for inputs, mask in ((ways[0], asked), (ways[2], asked[:, -new:]))
    ]
    assert torch.equal(*kept)
    assert not torch.equal(kept[0], outputs[0].compression_report.samples[1].kept_visual)
    # The new tokens are compressed as a prompt of their own.
    generated = torch.full_like(chat.tokens["input_ids"][:, :1], 5)
    following = extended(text(generated), alone)
    following["input_ids"][:, :1] = chat.tokens["input_ids"][:, start - 1 : start]
    report = model.generate(**following, **ENDLESS).compression_report
    for own, other in zip(report.samples, outputs[0].compression_report.samples, strict=True):
        assert torch.equal(start - 1 + own.kept_indices, other.kept_indices)
        assert other.scores is None or torch.equal(own.scores, other.scores)


@each_family
def test_a_turn_of_text_with_the_images_of_earlier_turns(family: str) -> None:
    """As a processor returns them for the whole conversation."""
    chat, cache = begin(family, [ONE_IMAGE])
    visuals = chat.visuals
    chat.say([QUESTION])
    output = chat.pair.compressed.generate(**chat.tokens, **visuals, **carried(cache), **ENDLESS)
    assert_recomputed(output, chat)


@pytest.mark.parametrize("way", ["generate", "forward"])
@pytest.mark.parametrize("first", [[TEXT_ONLY], full_only([ONE_IMAGE])], ids=["text", "image"])
@each_family
def test_a_cache_that_was_not_compressed(family: str, first: Any, way: str) -> None:
    chat = Conversation(make_pair(family=family), family)
    model, cache = chat.pair.compressed, DynamicCache()
    # Another conversation of text leaves nothing that matters.
    model.generate(**make_inputs([TEXT_ONLY] * 3, family=family), max_new_tokens=1)
    inputs = {**chat.say(first), **carried(cache)}
    with torch.no_grad(), model.token_compression.disabled():
        output = model(**inputs) if way == "forward" else model.generate(**inputs, **ENDLESS)
    if way == "forward":
        chat.hear(output.logits[:, -1:].argmax(-1))
    else:
        chat.hear(answer(output.sequences, chat.tokens))
    start = chat.kept.shape[1]
    chat.say([SECOND_IMAGE], seed=1)
    whole = {**chat.tokens, **chat.visuals}
    alone = {**of_last(chat.tokens, 1 + chat.kept.shape[1] - start), **chat.visuals}
    found = model.generate(**whole, **carried(copy.deepcopy(cache)), **ENDLESS)
    chat.drop(found.compression_report.samples, start)
    assert chat.kept.sum() < chat.kept.numel()
    assert_recomputed(found, chat)
    with torch.no_grad():
        logits = model(**alone, **carried(cache)).logits[:, -1]
    assert_close(logits, logits_of(found)[:, 0])
    # The cache now remembers the image, and text continues it.
    chat.hear(logits.argmax(-1)[:, None])
    chat.say([QUESTION])
    output = model.generate(**chat.tokens, **carried(cache), **ENDLESS)
    assert_recomputed(output, chat)


def test_compact_positions() -> None:
    """The kept tokens of every turn are numbered 0, 1, 2, …"""
    config = replace(QUARTER, position_ids="compact")
    chat = Conversation(make_pair(config), "qwen2_vl")
    model, cache = chat.pair.compressed, DynamicCache()
    for number, prompts in enumerate(CHAT[:4]):
        start = chat.kept.shape[1]
        chat.say(prompts, seed=number)
        output = model.generate(**chat.tokens, **chat.visuals, **carried(cache), **ENDLESS)
        if chat.visuals:
            chat.drop(output.compression_report.samples, start)
        positions = (chat.kept.cumsum(1) - 1).clamp(min=0).expand(4, -1, -1)
        assert_close(logits_of(output), logits_of(chat.recomputed(0, position_ids=positions)))
        chat.hear(answer(output.sequences, chat.tokens))


@pytest.mark.parametrize("family", ["qwen2_vl", full_only("llava_onevision"), full_only("glm4v")])
def test_grid_positions(family: str) -> None:
    """Later turns move up by what the images of all earlier ones lost."""
    config = replace(QUARTER, position_ids="grid", retention_ratio=0.1, scorer="uniform")
    chat = Conversation(make_pair(config, family=family), family)
    model, cache = chat.pair.compressed, DynamicCache()
    visuals: list[Tensor] = []
    for number, prompts in enumerate(CHAT[:4]):
        start = chat.kept.shape[1]
        chat.say(prompts, seed=number)
        output = model.generate(**chat.tokens, **chat.visuals, **carried(cache), **ENDLESS)
        if chat.visuals:
            samples = output.compression_report.samples
            chat.drop(samples, start)
            visuals += [own.positions for own in samples[0].visuals]
        whole = whole_position_ids(chat.pair.stock, chat.everything())
        positions = moved_up(whole[..., 0, :], chat.kept[0], visuals)[..., None, :]
        assert (positions[..., -1] < whole[..., -1]).all()
        if len(positions) == 4:
            positions[0] = whole[0]
        assert_close(logits_of(output), logits_of(chat.recomputed(0, position_ids=positions)))
        chat.hear(answer(output.sequences, chat.tokens))


@pytest.mark.parametrize("family", ["qwen2_vl", full_only("llava_onevision"), full_only("vila15")])
def test_a_new_video(family: str) -> None:
    chat, cache = begin(family, [ONE_IMAGE])
    start = chat.kept.shape[1]
    chat.say([ONE_VIDEO])
    output = chat.pair.compressed.generate(
        **chat.tokens, **chat.visuals, **carried(cache), **ENDLESS
    )
    chat.drop(output.compression_report.samples, start)
    assert_recomputed(output, chat)


@pytest.mark.parametrize(
    "options",
    [
        full_only({"num_beams": 2}, id="beams"),
        full_only({"num_return_sequences": 2, "num_beams": 2}, id="sequences"),
        full_only({"prefill_chunk_size": 7}, id="chunks"),
        full_only({}, id="static"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_other_ways_to_generate(
    family: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """They give what generating without a cache of earlier turns gives."""
    if "prefill_chunk_size" in options and not CHUNKS_CARRY_FEATURES:
        pytest.skip("needs Transformers 5.23")
    chat, cache = begin(family, [ONE_IMAGE])
    model, start = chat.pair.compressed, chat.kept.shape[1]
    if request.node.callspec.id.endswith("static"):
        text_config = model.config.get_text_config()
        cache = begin(family, [ONE_IMAGE], StaticCache(text_config, max_cache_len=300))[1]
    copies = options.get("num_beams", 1)
    chat.say([SECOND_IMAGE], seed=1)
    if copies > 1:
        cache.batch_repeat_interleave(copies)
    inputs = {**chat.tokens, **chat.visuals, **carried(cache)}
    output = model.generate(**inputs, **ENDLESS, **options)
    chat.drop(output.compression_report.samples, start)
    expected = chat.recomputed(0, **options)
    assert torch.equal(output.sequences, expected.sequences)
    if copies == 1:
        assert_close(logits_of(output), logits_of(expected))
    # What the cache remembers fits the samples that it holds.
    with torch.no_grad():
        model(input_ids=torch.full((copies, 1), 5), **carried(cache))


def test_what_does_not_fit_is_refused() -> None:
    chat, cache = begin("qwen2_vl", [ONE_IMAGE])
    model, start = chat.pair.compressed, chat.kept.shape[1]
    chat.say([(*SECOND_IMAGE[:2], 1, *SECOND_IMAGE[1:])])
    two = {**chat.tokens, **chat.visuals}
    alone = of_last(chat.tokens, 1 + chat.kept.shape[1] - start)
    # One of two new images.
    one = {
        **chat.tokens,
        "pixel_values": chat.visuals["pixel_values"][:192],
        "image_grid_thw": chat.visuals["image_grid_thw"][:1],
    }
    with one_sentence(ValueError, "image placeholders", "cache"):
        model.generate(**one, **carried(cache), **ENDLESS)
    # Masks and positions that cover neither the whole sequence nor the compressed one.
    for name in ("attention_mask", "position_ids"):
        positions = whole_position_ids(chat.pair.stock, chat.everything())
        own = {"attention_mask": alone["attention_mask"], "position_ids": positions}[name]
        with one_sentence(ValueError, name):
            model.generate(**{**two, name: own[..., 3:]}, **carried(cache), **ENDLESS)
        inputs = {**alone, **chat.visuals, name: own[..., 3:]}
        with one_sentence(ValueError, name):
            model(**inputs, **carried(cache))
    # A shorter prompt is one that starts without a cache.
    with one_sentence(ValueError, "prepare_inputs", "cache"):
        prepare_inputs(model, **two, **carried(cache))
    # Stock forwards do not know where kept tokens stand.
    for call in (model, model.generate):
        with model.token_compression.disabled(), one_sentence(ValueError, "token_compression=1.0"):
            call(**two, **carried(cache))
    # A refused call leaves the cache as it was, whoever refuses it.
    with pytest.raises(ValueError, match="num_return_sequences"):
        model.generate(**two, **carried(cache), **ENDLESS, num_return_sequences=3)
    output = model.generate(**two, **carried(cache), **ENDLESS)
    chat.drop(output.compression_report.samples, start)
    assert_recomputed(output, chat)


def test_images_that_are_numbered_need_position_ids() -> None:
    chat, cache = begin("hunyuan_vl", [ONE_IMAGE])
    model, start = chat.pair.compressed, chat.kept.shape[1]
    chat.say([SECOND_IMAGE], seed=1)
    inputs = {**chat.tokens, **chat.visuals, **carried(cache)}
    with one_sentence(ValueError, "position_ids"):
        model.generate(**inputs, **ENDLESS)
    positions = whole_position_ids(chat.pair.stock, chat.everything())
    output = model.generate(**inputs, position_ids=positions, **ENDLESS)
    chat.drop(output.compression_report.samples, start)
    assert_recomputed(output, chat)
