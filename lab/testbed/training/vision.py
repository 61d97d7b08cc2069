"""Compute visual tokens with the testbed's own modules, running the frozen tower once per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...tiny.architecture import StockModel


def pixels_of(images: Sequence[Image.Image]) -> Tensor:
    """[B, H, W, 3] uint8 of images of one shape."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


@torch.no_grad()
def tower_features(model: StockModel, processor: Any, pixels: Tensor) -> Tensor:
    """The tower's features that the projector reads.

    Args:
        model: The testbed.
        processor: Its processor, for mean and deviation of the pixels.
        pixels: [B, H, W, 3] uint8, with the size of a tile.

    Returns:
        [B, N, F] of N patches, in the tower's dtype.
    """
    prepared = processor.image_processor
    tower = model.model.vision_tower
    like = next(tower.parameters())
    mean = torch.tensor(prepared.image_mean, device=like.device)
    std = torch.tensor(prepared.image_std, device=like.device)
    normalised = (pixels.to(like.device).float() / 255 - mean) / std
    states = tower(normalised.permute(0, 3, 1, 2).to(like.dtype), output_hidden_states=True)
    layers = model.config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    # The strategy "default" drops the class token.
    return torch.cat([states.hidden_states[layer][:, 1:] for layer in layers], dim=-1)


def image_tokens(model: StockModel, patches: Tensor) -> Tensor:
    """Visual tokens of images with one tile: patches [B, N, D] → [B, 2N + √N, D]."""
    batch, count, width = patches.shape
    side = round(count**0.5)
    newline = model.model.image_newline.to(patches.dtype).expand(batch, side, 1, width)
    rows = torch.cat([patches.view(batch, side, side, width), newline], dim=2)  # [B, √N, √N + 1, D]
    return torch.cat([patches, rows.flatten(1, 2)], dim=1)  # [B, 2N + √N, D]


def clip_tokens(model: StockModel, patches: Tensor, frames: int) -> Tensor:
    """Visual tokens of clips: patches [B * frames, N, D] → [B, frames * N / 4 + 1, D]."""
    pooled = model.model.apply_pooling(patches)  # [B * frames, N / 4, D]
    clips = pooled.unflatten(0, (-1, frames)).flatten(1, 2)  # [B, frames * N / 4, D]
    newline = model.model.image_newline.to(patches.dtype).expand(len(clips), 1, clips.shape[-1])
    return torch.cat([clips, newline], dim=1)
