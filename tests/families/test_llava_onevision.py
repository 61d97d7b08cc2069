"""What is particular to LLaVA-OneVision: tiles, newline tokens, video features in one tensor."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload
from errors import one_sentence
from packaging.version import Version
from pairs import ModelPair, assert_same, make_pair, masked_inputs
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    TWO_IMAGES,
    TWO_VIDEOS,
    Prompt,
    family_prompts,
    make_inputs,
)

from hf_token_compress import prepare_inputs
from hf_token_compress.relevance import relevance

FAMILY = "llava_onevision"


@pytest.fixture
def pair() -> ModelPair:
    return make_pair(family=FAMILY)


@pytest.mark.core
@pytest.mark.parametrize(
    ("prompt", "shapes", "newlines"),
    [
        (ONE_IMAGE, [[(1, 4, 4), (1, 4, 6)]], [4]),
        (TWO_IMAGES, [[(1, 4, 4)], [(1, 4, 4)]], [1, 1]),
        (ONE_VIDEO, [[(2, 2, 2)]], [1]),
        (IMAGE_AND_VIDEO, [[(2, 2, 2)], [(1, 4, 4), (1, 4, 4)]], [1, 4]),
    ],
    ids=["one_image", "two_images", "video", "image_and_video"],
)
def test_every_visual_token_lies_on_one_grid_or_is_a_newline(
    prompt: Prompt, shapes: Any, newlines: list[int], pair: ModelPair
) -> None:
    pair.compressed(**make_inputs([prompt], family=FAMILY))
    sample = pair.compressed.token_compression.last.samples[0]
    assert [[grid.shape for grid in visual.grids] for visual in sample.visuals] == shapes
    for visual, expected in zip(sample.visuals, newlines, strict=True):
        on_grids = torch.cat([grid.index.flatten() for grid in visual.grids])
        assert len(on_grids.unique()) == len(on_grids) == len(visual.positions) - expected


@pytest.mark.core
def test_tokens_on_no_grid_are_the_newline_vector(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE], family=FAMILY)
    names = ("pixel_values", "image_sizes", "batch_num_images")
    features = pair.stock.get_image_features(
        **{name: inputs[name] for name in names}, return_dict=True
    ).pooler_output[0]
    pair.compressed(**inputs)
    grids = pair.compressed.token_compression.last.samples[0].visuals[0].grids
    is_newline = torch.ones(len(features), dtype=torch.bool)
    for grid in grids:
        is_newline[grid.index.flatten()] = False
    is_the_vector = (features == pair.stock.model.image_newline).all(dim=1)
    assert torch.equal(is_newline, is_the_vector)


def test_the_newline_vector_may_be_offloaded(pair: ModelPair) -> None:
    """It is a parameter of the model itself, which Accelerate loads for its forward alone."""
    inputs = make_inputs([IMAGE_AND_VIDEO], family=FAMILY)
    expected = pair.compressed(**inputs).logits
    offloaded = cpu_offload(copy.deepcopy(pair.compressed), execution_device=torch.device("cpu"))
    with torch.no_grad():
        assert_same(offloaded(**inputs).logits, expected)
    assert offloaded.model.image_newline.is_meta


@pytest.mark.core
@pytest.mark.parametrize("prompt", [ONE_IMAGE, ONE_VIDEO], ids=["image", "video"])
def test_generation_without_cache_ignores_gaps_between_positions(
    prompt: Prompt, pair: ModelPair
) -> None:
    """Transformers drops a mask that hides nothing, and then reads gaps as packed sequences."""
    inputs = make_inputs([prompt], family=FAMILY)
    options = {
        "use_cache": False,
        "max_new_tokens": 6,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    actual = pair.compressed.generate(**inputs, **options)
    expected = pair.stock.generate(**masked_inputs(pair, inputs), **options)
    assert torch.equal(actual.sequences, expected.sequences)
    assert_same(torch.stack(actual.logits), torch.stack(expected.logits))
    with torch.no_grad():
        prepared = prepare_inputs(pair.compressed, **inputs, use_cache=False)
    by_hand = pair.stock.generate(**{**prepared, **options})
    assert_same(torch.stack(by_hand.logits), torch.stack(actual.logits))


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23.0"), reason="needs Transformers 5.23"
)
@pytest.mark.parametrize(
    ("family", "prompts"),
    [
        case
        for case in family_prompts("ragged", "ragged_videos", "several_videos")
        if case.values[0] == FAMILY
    ],
)
def test_prefill_in_chunks(family: str, prompts: Any, pair: ModelPair) -> None:
    inputs = make_inputs(prompts, family=family)
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    whole = pair.compressed.generate(**inputs, **options)
    chunked = pair.compressed.generate(**inputs, **options, prefill_chunk_size=7)
    assert torch.equal(chunked.sequences, whole.sequences)
    assert_same(torch.stack(chunked.logits), torch.stack(whole.logits))


@pytest.mark.core
def test_given_features_are_compressed_like_pixels(pair: ModelPair) -> None:
    inputs = make_inputs([IMAGE_AND_VIDEO], family=FAMILY)
    expected = pair.compressed(**inputs).logits
    image = pair.stock.get_image_features(
        inputs.pop("pixel_values"),
        inputs["image_sizes"],
        batch_num_images=inputs["batch_num_images"],
        return_dict=True,
    )
    video = pair.stock.get_video_features(inputs.pop("pixel_values_videos"), return_dict=True)
    given = {"image": image, "video": video}
    assert torch.equal(pair.compressed(**inputs, mm_encoder_outputs=given).logits, expected)


@pytest.mark.core
def test_position_ids_of_the_caller(pair: ModelPair) -> None:
    """As in stock models, one sample of them serves the whole batch; another length is refused."""
    inputs = make_inputs([ONE_VIDEO, ONE_VIDEO], family=FAMILY)
    positions = 3 * torch.arange(inputs["input_ids"].shape[1])[None]
    actual = pair.compressed(**inputs, position_ids=positions).logits
    hidden = masked_inputs(pair, inputs)
    hidden["position_ids"] = positions.expand(2, -1)
    expected = pair.stock(**hidden).logits
    kept = pair.compressed.token_compression.last.samples[0].kept_indices
    assert_same(actual[0], expected[0, kept])
    with one_sentence(ValueError, "position_ids"):
        pair.compressed(**inputs, position_ids=positions[:, 1:])


def test_explaining_leaves_the_model_as_it_was(pair: ModelPair) -> None:
    """The first forward of its vision tower adds hooks, and an explanation may be the first."""
    inputs = make_inputs([IMAGE_AND_VIDEO], family=FAMILY)
    expected = pair.stock(**inputs).logits
    untouched = make_pair(family=FAMILY).stock
    first, second = (relevance(untouched, inputs, max_new_tokens=2).samples[0] for _ in range(2))
    assert torch.equal(first.scores, second.scores)
    assert len(first.scores) == len(first.visuals[0].positions) + len(first.visuals[1].positions)
    assert torch.equal(untouched(**inputs).logits, expected)


@pytest.mark.core
def test_missing_image_sizes(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE], family=FAMILY)
    del inputs["image_sizes"]
    with one_sentence(ValueError, "image_sizes"):
        pair.compressed(**inputs)


@pytest.mark.core
def test_image_counts_that_do_not_match(pair: ModelPair) -> None:
    inputs = make_inputs([TWO_IMAGES], family=FAMILY)
    inputs["batch_num_images"] = torch.tensor([3])
    image = pair.stock.get_image_features(
        inputs.pop("pixel_values"),
        inputs["image_sizes"],
        batch_num_images=torch.tensor([2]),
        return_dict=True,
    )
    with one_sentence(ValueError, "batch_num_images"):
        pair.compressed(**inputs, mm_encoder_outputs={"image": image})


@pytest.mark.core
def test_videos_of_different_lengths(pair: ModelPair) -> None:
    inputs: dict[str, Any] = make_inputs([TWO_VIDEOS], family=FAMILY)
    first, second = inputs["pixel_values_videos"]
    inputs["pixel_values_videos"] = [first, second[:1]]
    with one_sentence(ValueError, "pixel_values_videos"):
        pair.compressed(**inputs)


@pytest.mark.core
def test_given_video_features_that_are_not_whole_frames(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_VIDEO], family=FAMILY)
    video = pair.stock.get_video_features(inputs.pop("pixel_values_videos"), return_dict=True)
    video.pooler_output = video.pooler_output[:, :-1]
    with one_sentence(ValueError, "video"):
        pair.compressed(**inputs, mm_encoder_outputs={"video": video})
