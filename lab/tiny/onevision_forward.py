"""Visual tokens of clips and of images with one tile, by the stock model's modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from .architecture import StockModel
from .forward import normalised_pixels
from .onevision_architecture import PATCHES

IMAGE_TOKENS = PATCHES * PATCHES + PATCHES * (PATCHES + 1)
"""Visual tokens of an image with one tile: the whole image, the tile, and a newline per row."""


def tile_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of 192 x 192 pixels as float32 [B, 3, 192, 192], normalised as by the processor."""
    return normalised_pixels(images).permute(0, 3, 1, 2)


def encode_tiles(model: StockModel, pixels: torch.Tensor) -> torch.Tensor:
    """Visual tokens [B, 64, D] of tiles, before pooling and without newlines."""
    layer = model.config.vision_feature_layer
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    tokens: torch.Tensor = model.model.multi_modal_projector(output.hidden_states[layer])
    return tokens


def image_tokens(model: StockModel, tiles: torch.Tensor) -> torch.Tensor:
    """Visual tokens of images with one tile: [B, 64, D] → [B, 136, D]."""
    batch, _, width = tiles.shape
    rows = tiles.view(batch, PATCHES, PATCHES, width)
    newline = model.model.image_newline.to(tiles.dtype).expand(batch, PATCHES, 1, width)
    return torch.cat([tiles, torch.cat([rows, newline], dim=2).flatten(1, 2)], dim=1)


def clip_tokens(model: StockModel, tiles: torch.Tensor, frames: int) -> torch.Tensor:
    """Visual tokens of clips: frames [B * frames, 64, D] → [B, frames * 16 + 1, D]."""
    pooled = model.model.apply_pooling(tiles)  # [B * frames, 16, D]
    clips = pooled.unflatten(0, (-1, frames)).flatten(1, 2)  # [B, frames * 16, D]
    newline = model.model.image_newline.to(tiles.dtype).expand(len(clips), 1, clips.shape[-1])
    return torch.cat([clips, newline], dim=1)
