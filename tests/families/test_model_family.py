"""What `ModelFamily` reads off a model, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import HALF, make_pair
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    RAGGED,
    RAGGED_VIDEOS,
    make_inputs,
    tiny_config,
    tiny_family,
    tiny_model,
)
from torch import Tensor
from transformers import BertConfig, BertModel

from hf_token_compress import ModelFamily, compress, prepare_inputs, register_family
from hf_token_compress.compression.inputs import read_layout
from hf_token_compress.models import registry

pytestmark = pytest.mark.core


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
    [("llava", (1, 4, 4)), ("mistral3", (1, 6, 8)), ("qwen3_vl", (1, 6, 8))],
)
def test_layouts_of_a_call(family: str, shape: Any) -> None:
    _, compressed = make_pair(HALF, family=family)
    compressed(**make_inputs([ONE_IMAGE], family=family))
    (visual,) = compressed.token_compression.last.samples[0].visuals
    assert [grid.shape for grid in visual.grids] == [shape]


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gemma4", "image_position_ids"),
        ("kimi_k25", "image_grid_thw"),
        ("lfm2_vl", "spatial_shapes"),
        ("llava_next", "image_sizes"),
        ("qwen3_vl", "mm_token_type_ids"),
        ("qwen3_vl", "image_grid_thw"),
        ("qwen3_vl", "video_grid_thw"),
        ("video_llama_3", "video_merge_sizes"),
    ],
)
def test_missing_inputs(family: str, name: str) -> None:
    _, compressed = make_pair(HALF, family=family)
    titles = tiny_family(family).prompts
    prompt = IMAGE_AND_VIDEO if "image_and_video" in titles else ONE_IMAGE
    inputs = make_inputs([prompt], family=family)
    del inputs[name]
    with one_sentence(ValueError, name):
        compressed(**inputs)


def test_a_mask_of_other_videos() -> None:
    _, compressed = make_pair(HALF, family="video_llama_3")
    inputs = make_inputs([ONE_VIDEO], family="video_llama_3")
    inputs["video_compression_mask"] = inputs["video_compression_mask"][1:]
    with one_sentence(ValueError, "video_compression_mask"):
        compressed(**inputs)


def test_a_video_for_a_model_of_images() -> None:
    _, compressed = make_pair(HALF, family="llava")
    inputs = make_inputs([ONE_IMAGE], family="llava")
    with one_sentence(ValueError, "LlavaForConditionalGeneration", "videos"):
        compressed(**inputs, pixel_values_videos=inputs["pixel_values"])


def test_a_video_under_the_placeholder_of_images() -> None:
    """Without code that says so, the placeholders are looked for in vain."""
    with one_sentence(ValueError, "video"):
        read_layout(
            tiny_model(family="glm4v"), ModelFamily(), make_inputs([ONE_VIDEO], family="glm4v")
        )


def test_a_configuration_that_names_no_placeholder() -> None:
    config = BertConfig()
    with one_sentence(ValueError, "BertConfig", "image_token_id"):
        ModelFamily().placeholders(config, {"input_ids": torch.zeros(1, 1)}, "image")


def test_a_class_that_takes_no_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.FAMILIES, "registered", {})
    register_family("bert", ModelFamily)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 1}
    model = BertModel(BertConfig(vocab_size=9, hidden_size=8, intermediate_size=8, **sizes))
    with one_sentence(ValueError, "BertModel", "mm_encoder_outputs"):
        compress(model, HALF)
