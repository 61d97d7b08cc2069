"""Every token shows the part of the image where the library says it lies.

Real image processors cut a dark image with a bright block into tiles or patches, and the real
packing arranges them, with the brightness of every patch in place of its features. On the
library's grids, the brightness must have its centre where the block has its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import tiny_config
from transformers import LlavaOnevisionConfig, LlavaOnevisionModel
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.video_processing_llava_onevision import (
    LlavaOnevisionVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from hf_token_compress import ModelFamily
from hf_token_compress.models.llava_onevision import LlavaOnevisionFamily
from hf_token_compress.prompt import Modality, VisualLayout

TILES_FAMILY = LlavaOnevisionFamily()
PATCH = 8
TILES = 3
PLAIN: dict[str, Any] = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
# For Qwen2-VL: small enough that images are enlarged and shrunk. A token is four patches.
MERGED: dict[str, Any] = {
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 40**2, "longest_edge": 120**2},
    **PLAIN,
}

Box = tuple[float, float, float, float]

sides = st.integers(10, 260)
shares = st.floats(0.0, 1.0)
# Patches fill a tile of 48 pixels and leave 4 of 52 uncovered, as do the released models' patches
# of 14 in tiles of 384.
each_tile = pytest.mark.parametrize("tile", [48, 52])


def resolutions(tile: int) -> list[list[int]]:
    counts = range(1, TILES + 1)
    return [[rows * tile, columns * tile] for rows in counts for columns in counts]


@cache
def stock_model(tile: int) -> LlavaOnevisionModel:
    text = {"model_type": "qwen2", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8}
    return LlavaOnevisionModel(
        LlavaOnevisionConfig(
            text_config={**text, **heads},
            vision_config={
                **vision,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": tile,
                "patch_size": PATCH,
            },
            image_grid_pinpoints=resolutions(tile),
            vision_aspect_ratio="anyres_max_4",
            image_token_index=6,
            video_token_index=7,
        )
    )


def image_with_block(
    width: int, height: int, across: float, down: float
) -> tuple[Image.Image, Box]:
    """A dark image, and the block on it: left, top, right, bottom as shares of its sides."""
    block_width, block_height = max(3, width // 4), max(3, height // 4)
    left = round(across * (width - block_width))
    top = round(down * (height - block_height))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top : top + block_height, left : left + block_width] = 255
    right, bottom = left + block_width, top + block_height
    return Image.fromarray(pixels), (left / width, top / height, right / width, bottom / height)


def brightness(pixels: torch.Tensor) -> torch.Tensor:
    """Mean of every patch, as the features of tiles: [tiles, 3, H, W] → [tiles, patches, 1]."""
    pooled = torch.nn.functional.avg_pool2d(pixels.float().mean(1, keepdim=True), PATCH)
    return pooled.flatten(2).transpose(1, 2)


def packed(
    model: LlavaOnevisionModel, tiles: list[torch.Tensor], sizes: torch.Tensor
) -> list[torch.Tensor]:
    """Features [N, 1] of each image, with dark newlines."""
    features, _ = model.pack_image_features(
        tiles,
        sizes,
        image_newline=torch.zeros(1),
        vision_aspect_ratio=model.config.vision_aspect_ratio,
    )
    return features


def check_centres(features: torch.Tensor, layout: VisualLayout, block: Box, frame: int = 0) -> None:
    """On every grid, the brightness has its centre within 0.6 tokens of the block's.

    Only the part of the block on the grid counts: Transformers cuts off rows and columns of tokens
    that mostly show padding.
    """
    for grid in layout.grids:
        values = features.flatten()[grid.index[frame]]  # [rows, columns]
        _, rows, columns = grid.shape
        for axis, count in ((0, columns), (1, rows)):
            start, end = grid.area[axis], grid.area[axis + 2]
            token = (end - start) / count
            centre = (max(block[axis], start) + min(block[axis + 2], end)) / 2
            seen = values.sum(axis)
            # A block that barely reaches onto the grid leaves it dark.
            assume(seen.sum() > 0 and start < centre < end)
            found = (seen * (start + (torch.arange(count) + 0.5) * token)).sum() / seen.sum()
            assert abs(found - centre) < 0.6 * token


def layouts_of(
    family: ModelFamily, config: Any, modality: Modality, counts: list[int], **inputs: Any
) -> list[VisualLayout]:
    """What the library works out without a model and without pixels."""
    return family.layouts(config, family.sizes(config, inputs, modality, counts), modality)


@each_tile
@given(width=sides, height=sides, across=shares, down=shares)
@example(width=260, height=20, across=1.0, down=0.0)  # wide
@example(width=20, height=260, across=0.0, down=1.0)  # tall
@example(width=10, height=10, across=0.9, down=0.1)  # tiny
@example(width=10, height=260, across=0.0, down=0.5)  # no column of tokens wide
@example(width=260, height=10, across=0.5, down=0.0)  # no row of tokens high
@example(width=500, height=430, across=0.3, down=0.8)  # larger than all tiles together
def test_a_single_image(tile: int, width: int, height: int, across: float, down: float) -> None:
    image, block = image_with_block(width, height, across, down)
    model = stock_model(tile)
    processed = LlavaOnevisionImageProcessorPil(
        size={"height": tile, "width": tile}, image_grid_pinpoints=resolutions(tile), **PLAIN
    )(image, return_tensors="pt")
    tiles = brightness(processed["pixel_values"][0])
    sizes = processed["image_sizes"]
    features = packed(model, [tiles], sizes)
    counts = [len(tokens) for tokens in features]
    (layout,) = layouts_of(TILES_FAMILY, model.config, "image", counts, image_sizes=sizes)
    assert [layout.count] == counts
    check_centres(features[0], layout, block)


@each_tile
@given(width=sides, height=sides, across=shares, down=shares)
def test_one_of_several_images(
    tile: int, width: int, height: int, across: float, down: float
) -> None:
    image, block = image_with_block(width, height, across, down)
    model = stock_model(tile)
    processed = LlavaOnevisionImageProcessorPil(
        size={"height": tile, "width": tile}, image_grid_pinpoints=resolutions(tile), **PLAIN
    )([[Image.new("RGB", (30, 40)), image]], return_tensors="pt")
    sizes, counts = processed["image_sizes"], processed["batch_num_images"]
    tiles = [brightness(pixels[:1]) for pixels in processed["pixel_values"]]
    features = packed(model, tiles, sizes)
    lengths = [len(tokens) for tokens in features]
    inputs = {"image_sizes": sizes, "batch_num_images": counts}
    layouts = layouts_of(TILES_FAMILY, model.config, "image", lengths, **inputs)
    assert [layout.count for layout in layouts] == lengths
    check_centres(features[1], layouts[1], block)


@each_tile
@given(width=sides, height=sides, across=shares, down=shares, frame=st.integers(0, 2))
def test_a_frame_of_a_video(
    tile: int, width: int, height: int, across: float, down: float, frame: int
) -> None:
    image, block = image_with_block(width, height, across, down)
    model = stock_model(tile)
    frames = [Image.new("RGB", (width, height))] * 3
    frames[frame] = image
    processed = LlavaOnevisionVideoProcessor(size={"height": tile, "width": tile}, **PLAIN)(
        [np.stack([np.asarray(image) for image in frames])], return_tensors="pt"
    )
    pooled = model.apply_pooling(brightness(processed["pixel_values_videos"][0]))
    features = torch.cat([pooled.flatten(), torch.zeros(1)])
    (layout,) = layouts_of(TILES_FAMILY, model.config, "video", [len(features)])
    assert layout.count == len(features)
    check_centres(features, layout, block, frame)
    others = [features[layout.grids[0].index[i]] for i in range(3) if i != frame]
    assert all(values.sum() == 0 for values in others)


def merged_layout(modality: Any, processed: Any) -> tuple[torch.Tensor, VisualLayout]:
    """Brightness [N] of the tokens of one visual of Qwen2-VL, and where the library has them."""
    name = "pixel_values" if modality == "image" else "pixel_values_videos"
    tokens = processed[name].mean(1).view(-1, 4).mean(1)
    sizes = {f"{modality}_grid_thw": processed[f"{modality}_grid_thw"]}
    config = tiny_config(family="qwen2_vl")
    (layout,) = layouts_of(ModelFamily(), config, modality, [len(tokens)], **sizes)
    assert layout.count == len(tokens)
    return tokens, layout


@given(width=sides, height=sides, across=shares, down=shares)
@example(width=260, height=20, across=1.0, down=0.0)  # wide
@example(width=20, height=260, across=0.0, down=1.0)  # tall
@example(width=10, height=10, across=0.9, down=0.1)  # tiny
@example(width=500, height=430, across=0.3, down=0.8)  # larger than all tokens together
def test_an_image_of_merged_patches(width: int, height: int, across: float, down: float) -> None:
    image, block = image_with_block(width, height, across, down)
    processed = Qwen2VLImageProcessorPil(**MERGED)(image, return_tensors="pt")
    check_centres(*merged_layout("image", processed), block)


@given(width=sides, height=sides, across=shares, down=shares, step=st.integers(0, 2))
def test_two_frames_of_a_video_of_merged_patches(
    width: int, height: int, across: float, down: float, step: int
) -> None:
    image, block = image_with_block(width, height, across, down)
    frames = [Image.new("RGB", (width, height))] * 6
    frames[2 * step] = frames[2 * step + 1] = image
    processed = Qwen2VLVideoProcessor(cap_pixels_per_frame=True, **MERGED)(
        [np.stack([np.asarray(image) for image in frames])], return_tensors="pt"
    )
    tokens, layout = merged_layout("video", processed)
    check_centres(tokens, layout, block, step)
    others = [tokens[layout.grids[0].index[i]] for i in range(3) if i != step]
    assert all(values.sum() == 0 for values in others)
