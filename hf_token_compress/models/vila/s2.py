"""S2, scaling on scales: encode an image at several sizes, cut into tiles of the tower's size.

Source: Shi et al., "When Do We Not Need Larger Vision Models?", arXiv 2403.13043.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cut_tiles(pixel_values: Tensor, split: int, tile_side: int) -> Tensor:
    """Resize images to one scale and cut them into tiles.

    Args:
        pixel_values: float [B, 3, H, W].
        split: Tiles along a side.
        tile_side: Side length of a tile in pixels.

    Returns:
        float [split * split * B, 3, tile_side, tile_side]: tiles in row-major order, each for all
        images.
    """
    size = (split * tile_side, split * tile_side)
    resized = functional.interpolate(pixel_values.float(), size=size, mode="bicubic")
    grid = resized.to(pixel_values.dtype).unflatten(3, (split, tile_side))
    grid = grid.unflatten(2, (split, tile_side))  # [B, 3, split, tile, split, tile]
    return grid.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def join_tiles(features: Tensor, split: int) -> Tensor:
    """Join the features of the tiles of one scale.

    Args:
        features: float [split * split * B, side * side, C], of the tiles from `cut_tiles`.
        split: Tiles along a side.

    Returns:
        float [B, C, split * side, split * side].
    """
    side = int(features.shape[1] ** 0.5)
    grid = features.unflatten(1, (side, side)).unflatten(0, (split, split, -1))
    # [split, split, B, side, side, C] → [B, C, split, side, split, side]
    return grid.permute(2, 5, 0, 3, 1, 4).flatten(4, 5).flatten(2, 3)


def join_scales(scales: Sequence[Tensor]) -> Tensor:
    """Pool all scales to the size of the first and concatenate their channels.

    Args:
        scales: float [B, C, n, n] each, with a different n.

    Returns:
        float [B, n * n, len(scales) * C], row-major, with the n of the first scale.
    """
    size = scales[0].shape[-2:]
    pooled = [
        functional.interpolate(scale.float(), size=size, mode="area").to(scale.dtype)
        for scale in scales
    ]
    return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)
