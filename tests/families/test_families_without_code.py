"""`ModelFamily` as it is, or with a few lines, on models that the library has no code for.

The stock model is the reference: on the whole prompt, on the prepared inputs, and on the whole
prompt with the dropped tokens hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import KEEP_ALL, assert_same, make_pair, masked_inputs, sample_states
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    OTHER_FAMILIES,
    RAGGED,
    RAGGED_VIDEOS,
    family_prompts,
    make_inputs,
    tiny_base_model,
    tiny_config,
    tiny_model,
)
from tiny_others import GlmFamily
from torch import Tensor
from transformers import BertConfig, BertModel
from typing_extensions import override

from hf_token_compress import (
    ModelFamily,
    TokenCompressionConfig,
    compress,
    prepare_inputs,
    register_family,
)
from hf_token_compress.compression.mixin import compressed_class
from hf_token_compress.models import registry
from hf_token_compress.prompt import VisualLayout

pytestmark = pytest.mark.core

HALF = TokenCompressionConfig(retention_ratio=0.5, min_visual_tokens=0, scorer="uniform")
each_prompt = pytest.mark.parametrize(
    ("family", "prompts"), family_prompts(families=OTHER_FAMILIES)
)
each_batch = pytest.mark.parametrize(
    ("family", "prompts"),
    family_prompts("ragged", "ragged_videos", "videos", families=OTHER_FAMILIES),
)
each_side = pytest.mark.parametrize("padding_side", ["left", "right"])


class Mistral3Family(ModelFamily):
    """A text token stands between the rows of an image, as in the documentation."""

    @override
    def sizes(self, config: Any, inputs: Any, modality: Any, counts: Any) -> list[Any]:
        return [tuple(size) for size in inputs["image_sizes"].tolist()]

    @override
    def layouts(self, config: Any, sizes: Any, modality: Any) -> list[VisualLayout]:
        side = config.vision_config.patch_size * config.spatial_merge_size
        return [VisualLayout.row_major(1, height // side, width // side) for height, width in sizes]


OWN = {"glm4v": GlmFamily, "mistral3": Mistral3Family}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the families, for one test only."""
    monkeypatch.setattr(registry.FAMILIES, "registered", {})
    for name in OTHER_FAMILIES:
        register_family(name, OWN.get(name, ModelFamily))
    yield
    compressed_class.cache_clear()


@each_side
@each_prompt
def test_keeping_all_equals_stock(family: str, prompts: Any, padding_side: Any) -> None:
    stock, compressed = make_pair(KEEP_ALL, family=family)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    expected = stock(**inputs).logits
    assert torch.equal(compressed(**inputs).logits, expected)


@each_batch
def test_keeping_all_of_a_base_model_equals_stock(family: str, prompts: Any) -> None:
    stock = tiny_base_model(family=family)
    inputs = make_inputs(prompts, family=family)
    expected = stock(**inputs).last_hidden_state
    compressed = compress(copy.deepcopy(stock), KEEP_ALL)
    assert torch.equal(compressed(**inputs).last_hidden_state, expected)


@each_side
@each_batch
def test_compressed_equals_stock_on_prepared_inputs(
    family: str, prompts: Any, padding_side: Any
) -> None:
    stock, compressed = make_pair(HALF, family=family)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    with torch.no_grad():
        prepared = prepare_inputs(compressed, **inputs)
        actual = compressed(**inputs)
    if padding_side == "left":
        assert torch.equal(actual.logits, stock(**prepared).logits)
    for sample in compressed.token_compression.last.samples:
        assert abs(2 * int(sample.kept_visual.sum()) - len(sample.kept_visual)) <= 1


@each_side
@each_batch
def test_compressed_equals_stock_with_dropped_tokens_hidden(
    family: str, prompts: Any, padding_side: Any
) -> None:
    pair = make_pair(HALF, family=family)
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    actual = pair.compressed(**inputs).logits
    expected = pair.stock(**masked_inputs(pair, inputs)).logits
    samples = pair.compressed.token_compression.last.samples
    for number, sample in enumerate(samples):
        own = sample_states(actual, number, inputs, samples)
        assert_same(own, expected[number, sample.kept_indices])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_generated_ids(family: str, options: dict[str, Any]) -> None:
    stock, compressed = make_pair(HALF, family=family)
    inputs = make_inputs(RAGGED, family=family)
    options = {**options, "max_new_tokens": 6, "do_sample": False}
    with torch.no_grad():
        prepared = prepare_inputs(compressed, **inputs)
    expected = stock.generate(**prepared, **options)[:, prepared["input_ids"].shape[1] :]
    actual = compressed.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(actual, expected)
    whole = compressed.generate(**inputs, **options, token_compression=1.0)
    assert torch.equal(whole, stock.generate(**inputs, **options))


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_given_features_are_compressed_like_pixels(family: str) -> None:
    stock, compressed = make_pair(HALF, family=family)
    inputs = make_inputs(RAGGED, family=family)
    expected = compressed(**inputs).logits
    names = ("image_grid_thw", "image_sizes")
    sizes = {name: inputs[name] for name in names if name in inputs}
    image = stock.get_image_features(inputs.pop("pixel_values"), **sizes, return_dict=True)
    actual = compressed(**inputs, mm_encoder_outputs={"image": image}).logits
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("prompts", [RAGGED, RAGGED_VIDEOS], ids=["images", "videos"])
def test_features_for_deeper_layers_are_cut_by_the_same_mask(prompts: Any) -> None:
    stock, compressed = make_pair(HALF, family="qwen3_vl")
    inputs = make_inputs(prompts, family="qwen3_vl")
    with torch.no_grad():
        outputs = prepare_inputs(compressed, **inputs)["mm_encoder_outputs"]
    samples = compressed.token_compression.last.samples
    for modality, output in outputs.items():
        pixels = inputs["pixel_values" if modality == "image" else "pixel_values_videos"]
        encode = getattr(stock, f"get_{modality}_features")
        whole = encode(pixels, inputs[f"{modality}_grid_thw"], return_dict=True)
        kept = []
        for sample in samples:
            parts = sample.kept_visual.split([len(own.positions) for own in sample.visuals])
            pairs = zip(parts, sample.visuals, strict=True)
            kept += [part for part, own in pairs if own.modality == modality]
        mask = torch.cat(kept)
        assert 0 < mask.sum() < len(mask)
        assert len(output.deepstack_features) == 2
        levels = [output.pooler_output, *output.deepstack_features]
        expected = [whole.pooler_output, *whole.deepstack_features]
        for level, features in zip(levels, expected, strict=True):
            assert torch.equal(torch.cat(list(level)), torch.cat(list(features))[mask])


@pytest.mark.parametrize("family", ["glm4v", "qwen2_5_vl", "qwen3_vl"])
def test_positions_leave_no_trace_on_the_model(family: str) -> None:
    """The stock method leaves an offset on its model, which other threads may be using."""
    model = compress(tiny_model(family=family), HALF)
    inner, trace = model.model, object()
    inner.rope_deltas = trace
    with torch.no_grad():
        prepare_inputs(model, **make_inputs([ONE_IMAGE], family=family))
    assert inner.rope_deltas is trace


def test_threads_that_share_a_model_get_their_own_features() -> None:
    model = compress(tiny_model(family="qwen3_vl"), HALF)
    batches = [make_inputs(prompts, family="qwen3_vl") for prompts in (RAGGED, RAGGED_VIDEOS)]

    def prepared(inputs: Any) -> list[Tensor]:
        with torch.no_grad():
            outputs = prepare_inputs(model, **inputs)["mm_encoder_outputs"].values()
        levels = [
            level for own in outputs for level in (own.pooler_output, *own.deepstack_features)
        ]
        return [torch.cat(list(level)) for level in levels]

    expected = [prepared(inputs) for inputs in batches]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(prepared, batches * 20))
    for actual, whole in zip(found, expected * 20, strict=True):
        assert all(map(torch.equal, actual, whole))


@pytest.mark.parametrize(
    ("family", "size", "shape"),
    [
        ("qwen2_5_vl", (2, 4, 6), (2, 2, 3)),
        ("internvl", (16,), (1, 4, 4)),
        ("internvl", (7,), (1, 1, 7)),
        ("internvl", (0,), (1, 1, 0)),
    ],
    ids=["patches", "square", "row", "nothing"],
)
def test_layouts_need_no_model(family: str, size: Any, shape: Any) -> None:
    (layout,) = ModelFamily().layouts(tiny_config(family=family), [size], "image")
    (grid,) = layout.grids
    assert grid.shape == shape
    assert torch.equal(grid.index.flatten(), torch.arange(layout.count))


@pytest.mark.parametrize(
    ("family", "shape"),
    [("internvl", (1, 4, 4)), ("mistral3", (1, 6, 8)), ("qwen3_vl", (1, 6, 8))],
)
def test_layouts_of_a_call(family: str, shape: Any) -> None:
    _, compressed = make_pair(HALF, family=family)
    compressed(**make_inputs([ONE_IMAGE], family=family))
    (visual,) = compressed.token_compression.last.samples[0].visuals
    assert [grid.shape for grid in visual.grids] == [shape]


@pytest.mark.parametrize("name", ["mm_token_type_ids", "image_grid_thw", "video_grid_thw"])
def test_missing_inputs(name: str) -> None:
    _, compressed = make_pair(HALF, family="qwen3_vl")
    inputs = make_inputs([IMAGE_AND_VIDEO], family="qwen3_vl")
    del inputs[name]
    with one_sentence(ValueError, name):
        compressed(**inputs)


def test_a_video_for_a_model_of_images() -> None:
    _, compressed = make_pair(HALF, family="llava")
    inputs = make_inputs([ONE_IMAGE], family="llava")
    with one_sentence(ValueError, "LlavaForConditionalGeneration", "videos"):
        compressed(**inputs, pixel_values_videos=inputs["pixel_values"])


def test_a_video_under_the_placeholder_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without code that says so, the placeholders are looked for in vain."""
    compressed_class.cache_clear()
    monkeypatch.setitem(registry.FAMILIES.registered, "glm4v", ModelFamily)
    _, compressed = make_pair(HALF, family="glm4v")
    with one_sentence(ValueError, "video"):
        compressed(**make_inputs([ONE_VIDEO], family="glm4v"))


def test_a_configuration_that_names_no_placeholder() -> None:
    config = BertConfig()
    with one_sentence(ValueError, "BertConfig", "image_token_id"):
        ModelFamily().placeholders(config, {"input_ids": torch.zeros(1, 1)}, "image")


def test_a_class_that_takes_no_features_is_refused() -> None:
    register_family("bert", ModelFamily)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 1}
    model = BertModel(BertConfig(vocab_size=9, hidden_size=8, intermediate_size=8, **sizes))
    with one_sentence(ValueError, "BertModel", "mm_encoder_outputs"):
        compress(model, HALF)
