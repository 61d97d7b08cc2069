"""What settings and options of a call leave in the prompt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from pairs import ModelPair, assert_same, carried, make_pair, whole_position_ids
from tiny_models import (
    FAMILIES,
    IMAGE,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    RAGGED,
    TEXT_ONLY,
    TWO_IMAGES,
    make_inputs,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_token_compress import Scorer, TokenCompressionConfig, prepare_inputs

pytestmark = pytest.mark.core


def setting(**options: Any) -> TokenCompressionConfig:
    return TokenCompressionConfig(**{"min_visual_tokens": 0, "retention_ratio": 0.25, **options})


def kept_counts(model: Any) -> list[int]:
    return [sample.visual_tokens_after for sample in model.token_compression.last.samples]


def kept_per_visual(model: Any) -> list[list[int]]:
    """For each prompt, how many tokens each of its images keeps."""
    counts = []
    for sample in model.token_compression.last.samples:
        kept = set(sample.kept_indices.tolist())
        counts.append([len(kept & set(v.positions.tolist())) for v in sample.visuals])
    return counts


@pytest.mark.parametrize(("ratio", "kept"), [(0.25, 12), (0.5, 24), (1.0, 48), (0.001, 1)])
def test_ratio_of_a_call(ratio: float, kept: int, pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    pair.compressed(**inputs, token_compression=ratio)
    assert kept_counts(pair.compressed) == [kept]
    pair.compressed.generate(**inputs, token_compression=ratio, max_new_tokens=1)
    assert kept_counts(pair.compressed) == [kept]
    prepared = prepare_inputs(pair.compressed, **inputs, token_compression=ratio)
    assert int((prepared["input_ids"] == IMAGE).sum()) == kept
    pair.compressed(**inputs)
    assert kept_counts(pair.compressed) == [12]


def test_ratio_one_equals_stock(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    logits = pair.compressed(**inputs, token_compression=1.0).logits
    assert torch.equal(logits, pair.stock(**inputs).logits)


def test_each_prompt_has_its_own_budget(pair: ModelPair) -> None:
    pair.compressed(**make_inputs(RAGGED))
    assert kept_counts(pair.compressed) == [12, 13, 0, 15]


@pytest.mark.parametrize(
    ("minimum", "kept"),
    [
        (0, [12, 13, 0, 15]),
        (48, [12, 13, 0, 15]),
        (49, [48, 13, 0, 15]),
        (60, [48, 52, 0, 15]),
        (61, [48, 52, 0, 60]),
    ],
)
def test_min_visual_tokens(minimum: int, kept: list[int]) -> None:
    stock, compressed = make_pair(setting(min_visual_tokens=minimum))
    inputs = make_inputs(RAGGED)
    logits = compressed(**inputs).logits
    assert kept_counts(compressed) == kept
    if minimum == 61:
        assert torch.equal(logits, stock(**inputs).logits)


def test_min_visual_tokens_outweighs_top_p_and_cap() -> None:
    stock, compressed = make_pair(setting(min_visual_tokens=49, top_p=0.1, max_visual_tokens=5))
    inputs = make_inputs([ONE_IMAGE])
    assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)


@pytest.mark.parametrize(("cap", "kept"), [(1, 1), (7, 7), (12, 12), (13, 12), (1000, 12)])
def test_max_visual_tokens(cap: int, kept: int) -> None:
    _, compressed = make_pair(setting(max_visual_tokens=cap))
    compressed(**make_inputs([ONE_IMAGE]))
    assert kept_counts(compressed) == [kept]


@pytest.mark.parametrize("floor", [0, 1, 3, 10, 100])
def test_min_tokens_per_visual(floor: int) -> None:
    _, compressed = make_pair(setting(min_tokens_per_visual=floor, retention_ratio=0.1))
    inputs = make_inputs([TWO_IMAGES, ONE_IMAGE])
    compressed(**inputs)
    sizes = [[24, 36], [48]]
    for kept, size in zip(kept_per_visual(compressed), sizes, strict=True):
        assert all(k >= min(floor, s) for k, s in zip(kept, size, strict=True))
        budget = round(0.1 * sum(size))
        assert sum(kept) == max(budget, sum(min(floor, s) for s in size))


@pytest.mark.parametrize("floor", [0, 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_min_tokens_per_frame(family: str, floor: int) -> None:
    """The image after the video has higher scores, so only the floor keeps tokens of frames."""
    config = setting(min_tokens_per_frame=floor, min_tokens_per_visual=0, retention_ratio=0.25)
    _, compressed = make_pair(config, family=family)

    class LastTokens(Scorer):
        def score(self, prompt: Any) -> torch.Tensor:
            order = torch.arange(prompt.input_ids.shape[1], dtype=torch.float32)
            return order.expand(prompt.input_ids.shape)

    compressed.token_compression.scorer = LastTokens()
    compressed(**make_inputs([IMAGE_AND_VIDEO], family=family))
    sample = compressed.token_compression.last.samples[0]
    frames = sample.visuals[0].grids[0].index  # [frames, rows, columns]
    assert sample.kept_visual[frames].flatten(1).sum(1).tolist() == [floor] * len(frames)
    assert sample.visual_tokens_after == round(0.25 * len(sample.kept_visual))


def test_an_image_may_lose_all_its_tokens() -> None:
    """With no floor per image, forward, generate and beams still work."""
    stock, compressed = make_pair(setting(min_tokens_per_visual=0))
    inputs = make_inputs([TWO_IMAGES, ONE_IMAGE])

    class SecondImageOnly(Scorer):
        def score(self, prompt: Any) -> torch.Tensor:
            order = torch.arange(prompt.input_ids.shape[1], dtype=torch.float32)
            return order.expand(prompt.input_ids.shape)

    compressed.token_compression.scorer = SecondImageOnly()
    for options in ({}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}):
        torch.manual_seed(0)
        out = compressed.generate(**inputs, max_new_tokens=4, **options)
        assert kept_per_visual(compressed) == [[0, 15], [12]]
        prepared = prepare_inputs(compressed, **inputs)
        torch.manual_seed(0)
        expected = stock.generate(**prepared, max_new_tokens=4, **options)
        assert torch.equal(out[:, -4:], expected[:, -4:])


def test_kept_tokens_are_the_best_scored() -> None:
    _, compressed = make_pair(setting(scorer="attention", min_tokens_per_visual=0))
    compressed(**make_inputs(RAGGED))
    for sample in compressed.token_compression.last.samples:
        if sample.visual_tokens_before == 0:
            continue
        kept, dropped = sample.scores[sample.kept_visual], sample.scores[~sample.kept_visual]
        assert kept.min() >= dropped.max()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_top_p_keeps_the_fewest_tokens_that_reach_the_share(share: float) -> None:
    _, compressed = make_pair(setting(top_p=share, retention_ratio=1.0, min_tokens_per_visual=0))
    compressed(**make_inputs(RAGGED))
    counts = set()
    for sample in compressed.token_compression.last.samples:
        if sample.visual_tokens_before == 0:
            continue
        scores = sample.scores.double()
        kept = scores[sample.kept_visual]
        assert kept.sum() >= share * scores.sum() - 1e-9
        assert kept.sum() - kept.min() < share * scores.sum()
        counts.add(sample.visual_tokens_after)
    assert len(counts) > 1


def test_top_p_keeps_at_most_the_ratio() -> None:
    _, compressed = make_pair(setting(top_p=1.0))
    compressed(**make_inputs([ONE_IMAGE]))
    assert kept_counts(compressed) == [12]


def test_compact_positions_count_up_on_every_axis() -> None:
    stock, compressed = make_pair(setting(position_ids="compact"))
    inputs = make_inputs(RAGGED)
    prepared = prepare_inputs(compressed, **inputs)
    whole = whole_position_ids(stock, inputs)
    for sample, prompt in enumerate(RAGGED):
        real = prepared["attention_mask"][sample].bool()
        positions = prepared["position_ids"][:, sample][:, real]
        if prompt is TEXT_ONLY:
            given = inputs["attention_mask"][sample].bool()
            assert torch.equal(positions, whole[:, sample][:, given])
        else:
            assert torch.equal(positions, torch.arange(int(real.sum())).expand(4, -1))


def test_compact_positions_continue_after_the_prompt() -> None:
    stock, compressed = make_pair(setting(position_ids="compact"))
    inputs = make_inputs([ONE_IMAGE])
    out = compressed.generate(**inputs, max_new_tokens=6, use_cache=False)
    assert torch.equal(compressed.generate(**inputs, max_new_tokens=6), out)
    prepared = prepare_inputs(compressed, **inputs)
    prepared.pop("position_ids")
    length = prepared["input_ids"].shape[1]
    embeds = stock.get_input_embeddings()(prepared["input_ids"])
    features = torch.cat(list(prepared["mm_encoder_outputs"]["image"].pooler_output))
    embeds[prepared["input_ids"] == IMAGE] = features
    # Given only embeddings, the decoder numbers tokens 0, 1, 2, …
    hidden = stock.model.language_model(inputs_embeds=embeds).last_hidden_state
    first = stock.lm_head(hidden[:, -1])
    assert_same(compressed(**inputs).logits[:, -1], first)
    following = stock.get_input_embeddings()(out[:, -6:-5])
    hidden = stock.model.language_model(inputs_embeds=torch.cat([embeds, following], 1))
    second = stock.lm_head(hidden.last_hidden_state[:, length])
    cache = compressed(**inputs).past_key_values
    assert_same(compressed(input_ids=out[:, -6:-5], **carried(cache)).logits[:, -1], second)


def test_the_instruction_mask_changes_the_scores(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    visual_end = int((inputs["input_ids"][0] == IMAGE).nonzero()[-1])
    scores = []
    for start in (visual_end + 2, visual_end + 4):
        mask = torch.zeros_like(inputs["input_ids"])
        mask[0, start : start + 2] = 1
        pair.compressed(**inputs, instruction_mask=mask)
        scores.append(pair.compressed.token_compression.last.samples[0].scores)
        pair.compressed(**inputs, instruction_mask=mask.bool())
        assert torch.equal(pair.compressed.token_compression.last.samples[0].scores, scores[-1])
        pair.compressed.generate(**inputs, instruction_mask=mask, max_new_tokens=1)
        assert torch.equal(pair.compressed.token_compression.last.samples[0].scores, scores[-1])
    assert not torch.equal(*scores)


def test_disabled_equals_stock_and_may_be_nested(pair: ModelPair) -> None:
    stock, compressed = pair
    inputs = make_inputs(RAGGED)
    expected, answers = stock(**inputs).logits, stock.generate(**inputs, max_new_tokens=4)
    switch = compressed.token_compression
    with switch.disabled():
        with switch.disabled():
            assert torch.equal(compressed(**inputs).logits, expected)
        assert torch.equal(compressed.generate(**inputs, max_new_tokens=4), answers)
        assert not switch.enabled
        assert switch.last is None
    assert switch.enabled
    assert compressed(**inputs).logits.shape != expected.shape


def test_disabled_ends_after_an_error_too(pair: ModelPair) -> None:
    with pytest.raises(KeyError), pair.compressed.token_compression.disabled():
        raise KeyError
    assert pair.compressed.token_compression.enabled


def test_options_of_a_call_are_accepted_without_compression(pair: ModelPair) -> None:
    text = make_inputs([TEXT_ONLY])
    expected = pair.stock(**text).logits
    assert torch.equal(pair.compressed(**text, token_compression=0.1).logits, expected)
    inputs = make_inputs([ONE_IMAGE])
    with pair.compressed.token_compression.disabled():
        logits = pair.compressed(**inputs, token_compression=0.1, instruction_mask=None).logits
        assert torch.equal(logits, pair.stock(**inputs).logits)
        pair.compressed.generate(**inputs, token_compression=0.1, max_new_tokens=1)


def test_report_of_the_last_call(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    assert pair.compressed.token_compression.last is None
    pair.compressed(**inputs)
    report = pair.compressed.token_compression.last
    assert len(report.samples) == len(RAGGED)
    assert report.vision_ms > 0
    assert report.scoring_ms > 0
    assert report.rewriting_ms > 0
    for number, sample in enumerate(report.samples):
        ids, real = inputs["input_ids"][number], inputs["attention_mask"][number].bool()
        visual = ((ids == IMAGE) & real).nonzero().flatten()
        text = ((ids != IMAGE) & real).nonzero().flatten()
        assert torch.equal(sample.visual_indices, visual)
        assert sample.visual_tokens_before == len(visual)
        kept = sample.kept_indices
        assert torch.equal(kept, kept.sort().values)
        expected = torch.cat([text, visual[sample.kept_visual]]).sort().values
        assert torch.equal(kept, expected)
        assert sample.visual_tokens_after == int(sample.kept_visual.sum())
        if len(visual):
            assert sample.scores.shape == visual.shape
            assert not sample.scores.requires_grad
            assert torch.equal(torch.cat([v.positions for v in sample.visuals]), visual)
    shapes = [grid.shape for visual in report.samples[1].visuals for grid in visual.grids]
    assert shapes == [(1, 6, 6), (1, 4, 4)]
    assert {v.modality for v in report.samples[1].visuals} == {"image"}


def test_report_of_a_video_and_an_image(pair: ModelPair) -> None:
    pair.compressed(**make_inputs([(2, (2, 4, 4), 3, (4, 4), 5, "end", 2)]))
    visuals = pair.compressed.token_compression.last.samples[0].visuals
    assert [(visual.modality, *(grid.shape for grid in visual.grids)) for visual in visuals] == [
        ("video", (2, 4, 4)),
        ("image", (1, 4, 4)),
    ]
    assert kept_counts(pair.compressed) == [12]


def test_report_without_scores(pair: ModelPair) -> None:
    pair.compressed(**make_inputs([ONE_IMAGE]), token_compression=1.0)
    report = pair.compressed.token_compression.last
    assert report.samples[0].scores is None
    assert report.samples[0].visual_tokens_after == 48
    assert report.scoring_ms == 0


def test_given_features_are_used_and_compressed_once() -> None:
    stock, compressed = make_pair()
    inputs = make_inputs(RAGGED)
    expected = compressed(**inputs).logits
    answers = compressed.generate(**inputs, max_new_tokens=4)
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        encoded = stock.get_image_features(pixels, inputs["image_grid_thw"], return_dict=True)
    lengths = [len(features) for features in encoded.pooler_output]
    given = {"image": encoded}
    compressed.model.visual.register_forward_pre_hook(lambda *_: pytest.fail("vision ran again"))
    assert_same(compressed(**inputs, mm_encoder_outputs=given).logits, expected)
    assert compressed.token_compression.last.vision_ms == 0
    out = compressed.generate(**inputs, mm_encoder_outputs=given, max_new_tokens=4)
    assert torch.equal(out, answers)
    assert given == {"image": encoded}
    assert [len(features) for features in encoded.pooler_output] == lengths
    assert type(encoded) is BaseModelOutputWithPooling


def test_prepared_inputs_are_not_compressed_again(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    prepared = prepare_inputs(pair.compressed, **inputs)
    expected = pair.compressed(**inputs).logits
    assert torch.equal(pair.compressed(**prepared).logits, expected)
    again = prepare_inputs(pair.compressed, **prepared)
    assert torch.equal(again["input_ids"], prepared["input_ids"])
    out = pair.compressed.generate(**prepared, max_new_tokens=4)
    answers = pair.compressed.generate(**inputs, max_new_tokens=4)
    assert torch.equal(out[:, -4:], answers[:, -4:])


def test_prepared_inputs_of_text_come_back_unchanged(pair: ModelPair) -> None:
    inputs = make_inputs([TEXT_ONLY])
    prepared = prepare_inputs(pair.compressed, **inputs)
    assert prepared.keys() == inputs.keys()
    assert all(prepared[name] is value for name, value in inputs.items())


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setting().retention_ratio = 0.5  # type: ignore[misc]
