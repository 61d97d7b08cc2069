"""Parts of VILA1.5 against plain versions of what they do."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from pairs import QUARTER
from tiny_models import (
    IMAGE,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    TURN_END,
    TWO_VIDEOS,
    VIDEO,
    VOCABULARY,
    make_inputs,
    tiny_base_model,
    tiny_config,
    tiny_model,
)
from torch import Tensor
from torch.nn import functional
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaModel

from hf_token_compress import compress
from hf_token_compress.models.vila import VilaConfig, VilaForConditionalGeneration, VilaModel
from hf_token_compress.models.vila.family import image_layout
from hf_token_compress.models.vila.projector import merge_patches
from hf_token_compress.models.vila.s2 import cut_tiles, join_scales, join_tiles

pytestmark = pytest.mark.core

VILA = {"family": "vila15"}
PREDICTED = [token for token in range(VOCABULARY) if token not in (IMAGE, VIDEO)]
orders = st.sampled_from(["column_major", "row_major"])


@given(side=st.integers(1, 6), batch=st.integers(1, 3), order=orders)
def test_merged_patches(side: int, batch: int, order: Any) -> None:
    """Cell by cell, with zeros below the bottom and right of the right edge."""
    grid = torch.randn(batch, side, side, 2, generator=torch.Generator().manual_seed(side))
    merged = merge_patches(grid.flatten(1, 2), order)
    half = (side + 1) // 2
    assert merged.shape == (batch, half * half, 8)
    for row in range(half):
        for column in range(half):
            place = column * half + row if order == "column_major" else row * half + column
            for number, (down, across) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                y, x = 2 * row + down, 2 * column + across
                inside = y < side and x < side
                expected = grid[:, y, x] if inside else torch.zeros(batch, 2)
                assert torch.equal(merged[:, place, 2 * number : 2 * number + 2], expected)


@given(split=st.integers(1, 3), side=st.integers(2, 4), batch=st.integers(1, 3))
def test_tiles_are_cut_and_joined_in_place(split: int, side: int, batch: int) -> None:
    """At the image's own size nothing is resized, so every tile is a part of the image."""
    size = split * side
    pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(split))
    tiles = cut_tiles(pixels, split, side)
    for row in range(split):
        for column in range(split):
            rows = slice(row * side, (row + 1) * side)
            columns = slice(column * side, (column + 1) * side)
            own = tiles[(row * split + column) * batch :][:batch]
            torch.testing.assert_close(own, pixels[:, :, rows, columns])
    joined = join_tiles(tiles.flatten(2).transpose(1, 2), split)
    torch.testing.assert_close(joined, pixels)


def test_scales_are_pooled_to_the_first() -> None:
    small, large = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 6, 6)
    joined = join_scales([small, large]).view(2, 2, 2, 6)
    assert torch.equal(joined[..., :3], small.permute(0, 2, 3, 1))
    corner = large[:, :, :3, 3:].mean(dim=(2, 3))
    torch.testing.assert_close(joined[:, 0, 1, 3:], corner)


def patch_model(**options: Any) -> VilaModel:
    """A model whose features depend on one patch each, without attention between patches."""
    model = tiny_base_model(**VILA)
    settings = {**model.config.to_dict(), "vision_feature_layer": -3, **options}
    torch.manual_seed(4)
    return VilaModel(VilaConfig(**settings)).eval()


@pytest.mark.parametrize("order", ["column_major", "row_major"])
@pytest.mark.parametrize("scales", [None, [28, 56]])
def test_every_token_lies_where_the_layout_says(order: Any, scales: Any) -> None:
    """Changing a patch changes only the token whose cell covers it, in the right frame."""
    model = patch_model(token_order=order, s2_scales=scales)
    config = model.config
    layout = image_layout(config, frames=2)
    (grid,) = layout.grids
    assert grid.shape == (2, 4, 4)
    assert grid.index.flatten().sort().values.tolist() == list(range(layout.count))
    side = config.image_side
    pixels = torch.randn(1, 2, 3, side, side, generator=torch.Generator().manual_seed(0))
    (before,) = model.get_video_features(pixels).pooler_output
    assert before.shape[0] == layout.count
    width = grid.area[2]
    for frame in range(2):
        for y, x in ((0, 0), (0, 3), (2, 1), (6, 6), (5, 2)):
            # The middle of a patch, so that resizing does not reach other patches.
            scale = side // 7
            middle = [at * scale + scale // 2 for at in (y, x)]
            changed = pixels.clone()
            changed[0, frame, :, middle[0], middle[1]] += 5.0
            (after,) = model.get_video_features(changed).pooler_output
            moved = (after - before).abs().amax(dim=-1) > 1e-4
            row, column = (int((at + 0.5) / side / width * 4) for at in middle)
            assert moved.nonzero().flatten().tolist() == [int(grid.index[frame, row, column])]


@pytest.mark.parametrize(
    ("image_size", "extent"), [(24, 1.0), (30, 1.2), (27, 24 / 27), (384, 28 * 14 / 384)]
)
def test_area_of_the_grid(image_size: int, extent: float) -> None:
    """Patches may end before the edge of the image; merged, they may reach beyond it."""
    patch = 14 if image_size == 384 else 6
    vision = {"image_size": image_size, "patch_size": patch}
    (grid,) = image_layout(VilaConfig(vision_config=vision), frames=1).grids
    assert grid.area == pytest.approx((0.0, 0.0, extent, extent))


def test_the_published_geometry_by_default() -> None:
    config = VilaConfig()
    assert (config.feature_side, config.merged_side, config.image_seq_length) == (27, 14, 196)
    assert config.text_config.vocab_size == 32002
    s2 = VilaConfig(s2_scales=[768, 384])
    assert (s2.image_side, s2.splits, s2.image_seq_length) == (768, [1, 2], 196)


@pytest.mark.parametrize("scales", [[], [100], [0], [384, 500]])
def test_scales_that_do_not_fit_the_tower(scales: Any) -> None:
    with one_sentence(ValueError, "s2_scales"):
        VilaConfig(s2_scales=scales)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_placeholders_are_never_predicted(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype, **VILA)
    inputs = make_inputs([ONE_IMAGE], dtype=dtype, **VILA)
    logits = model(**inputs).logits
    assert (logits[..., [IMAGE, VIDEO]] == torch.finfo(dtype).min).all()
    shares = logits.float().softmax(-1)
    assert (shares[..., [IMAGE, VIDEO]] == 0).all()
    torch.testing.assert_close(shares[..., PREDICTED], logits[..., PREDICTED].float().softmax(-1))


def test_placeholders_do_not_affect_the_loss() -> None:
    model = tiny_model(**VILA)
    inputs = make_inputs([ONE_IMAGE], **VILA)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    labels = labels.masked_fill(labels == TURN_END, -100)
    output = model(**inputs, labels=labels)
    # Ids of text come before those of the placeholders.
    expected = functional.cross_entropy(
        output.logits[0, :-1, PREDICTED], labels[0, 1:], ignore_index=-100
    )
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert (model.lm_head.weight.grad[[IMAGE, VIDEO]] == 0).all()
    assert (model.lm_head.weight.grad[PREDICTED].abs().sum(1) > 0).all()


def test_tokens_added_later_are_predicted(tmp_path: Path) -> None:
    model = tiny_model(**VILA)
    inputs = make_inputs([ONE_IMAGE], **VILA)
    expected = model(**inputs).logits
    model.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
    logits = model(**inputs).logits
    torch.testing.assert_close(logits[..., :VOCABULARY], expected, rtol=1e-5, atol=1e-5)
    assert logits.shape[-1] == VOCABULARY + 3
    assert (logits[..., VOCABULARY:].abs() < 1e3).all()
    model.save_pretrained(tmp_path)
    loaded = VilaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, logits)


@pytest.mark.parametrize("count", [VOCABULARY + 3, VOCABULARY - 2])
def test_a_resized_head_is_not_drawn_again(count: int) -> None:
    model = tiny_model(**VILA)
    model.resize_token_embeddings(count, mean_resizing=False)
    head, embeddings = model.lm_head.weight.clone(), model.get_input_embeddings().weight.clone()
    model.post_init()
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.get_input_embeddings().weight, embeddings)


def test_features_as_tuples() -> None:
    model = tiny_model(**VILA)
    pixels = make_inputs([ONE_VIDEO], **VILA)["pixel_values_videos"]
    for encode in (model.get_video_features, model.model.get_video_features):
        expected = encode(pixels).to_tuple()
        found = encode(pixels, return_dict=False)
        assert type(found) is tuple
        assert len(found) == len(expected)
        assert all(map(torch.equal, found[-1], expected[-1]))


@pytest.mark.parametrize("tied", [False, True])
def test_what_tensor_parallelism_shards(tied: bool) -> None:
    """The head needs the whole vocabulary, and an embedding that shares its weights goes along."""
    config = tiny_config(**VILA)
    config.tie_word_embeddings = tied
    model = VilaForConditionalGeneration(config)
    shared = model.lm_head.weight is model.get_input_embeddings().weight
    assert shared == tied
    stock = LlavaForConditionalGeneration(
        LlavaConfig(text_config=config.text_config, vision_config=config.vision_config)
    )
    left_out = {"lm_head", "model.language_model.embed_tokens"} if tied else {"lm_head"}
    own = {name for name in stock.tp_plan if not name.startswith("model.multi_modal")} - left_out
    for _ in range(2):
        assert set(model.tp_plan) == own
        model.post_init()


def as_images(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same prompt with the frames of its videos as images, in order."""
    ids = inputs["input_ids"]
    images = iter(inputs.get("pixel_values", ids[:0]))
    frames = iter(inputs["pixel_values_videos"].flatten(0, 1))
    placeholders = ids[(ids == IMAGE) | (ids == VIDEO)].view(-1, 16)
    pixels = [next(frames if int(kind[0]) == VIDEO else images) for kind in placeholders]
    rest = {n: v for n, v in inputs.items() if n not in ("pixel_values", "pixel_values_videos")}
    return {
        **rest,
        "input_ids": ids.masked_fill(ids == VIDEO, IMAGE),
        "pixel_values": torch.stack(pixels),
    }


MIXED = {
    "video": [ONE_VIDEO],
    "videos": [TWO_VIDEOS],
    "image_and_video": [IMAGE_AND_VIDEO],
    "batch": [ONE_VIDEO, IMAGE_AND_VIDEO, ONE_IMAGE],
}


@torch.no_grad()
@pytest.mark.parametrize("prompts", MIXED.values(), ids=MIXED)
def test_a_video_is_its_frames_as_images(prompts: Any) -> None:
    model = tiny_model(**VILA)
    inputs = make_inputs(prompts, **VILA)
    expected = model(**as_images(inputs)).logits
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
    base = model.model(**inputs).last_hidden_state
    torch.testing.assert_close(model.lm_head(base), expected, rtol=1e-5, atol=1e-5)
    options: dict[str, Any] = {"max_new_tokens": 5, "num_beams": 2}
    answer = model.generate(**inputs, **options)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(
        answer[:, length:], model.generate(**as_images(inputs), **options)[:, length:]
    )


def test_tuples_on_request() -> None:
    model = tiny_model(**VILA)
    inputs = make_inputs([IMAGE_AND_VIDEO], **VILA)
    logits, *_ = model(**inputs, return_dict=False)
    assert torch.equal(logits, model(**inputs).logits)
    s2 = patch_model(s2_scales=[28, 56])
    pixels = torch.randn(2, 3, 56, 56)
    features = s2.get_image_features(pixels, return_dict=False)[-1]
    assert [len(own) for own in features] == [16, 16]


def test_placeholders_that_do_not_match_the_videos() -> None:
    model = tiny_model(**VILA)
    inputs = make_inputs([ONE_VIDEO], **VILA)
    with one_sentence(ValueError, "placeholders"):
        model(**{**inputs, "pixel_values_videos": inputs["pixel_values_videos"][:, :1]})
    with one_sentence(ValueError, "pixel_values_videos"):
        model(**{**inputs, "pixel_values_videos": inputs["pixel_values_videos"][0]})
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    with one_sentence(ValueError, "input_ids"):
        model(**inputs, inputs_embeds=embeddings)


@pytest.mark.parametrize(
    ("own", "stock"),
    [
        (VilaModel, LlavaModel),
        (VilaForConditionalGeneration, LlavaForConditionalGeneration),
    ],
)
def test_signatures_are_llavas_with_videos(own: Any, stock: Any) -> None:
    """Trainer, PEFT and generate read signatures."""
    names = list(inspect.signature(own.forward).parameters)
    expected = list(inspect.signature(stock.forward).parameters)
    assert [name for name in names if name != "pixel_values_videos"] == expected
    assert "pixel_values_videos" in names
    compressed = compress(tiny_model(**VILA), QUARTER)
    whole = inspect.signature(VilaForConditionalGeneration.forward)
    assert inspect.signature(type(compressed).forward) == whole
