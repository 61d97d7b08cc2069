"""VILA1.5: square images, column by column; videos as frames with line breaks.

The line breaks between the frames of a video are text, so they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ...prompt import Modality, TokenGrid, VisualLayout
from ..family import ModelFamily, Size
from .configuration import VilaConfig
from .projector import merge_patches
from .s2 import join_scales, join_tiles


class VilaFamily(ModelFamily):
    """`VilaForConditionalGeneration` and `VilaModel`; a size is the number of frames."""

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        return [(count // config.image_seq_length,) for count in counts]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        return [image_layout(config, frames) for (frames,) in sizes]

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        config = model.config
        scales = [
            join_tiles(tiles[..., None], split)  # [frames, 1, side, side]
            for tiles, split in zip(received, config.splits, strict=True)
        ]
        patches = join_scales(scales).mean(dim=-1, keepdim=True)  # [frames, patches, 1]
        merged = merge_patches(patches, config.token_order)  # [frames, tokens, 4]
        # Where the number of patches is odd, some of the four are padding.
        exist = merge_patches(torch.ones_like(patches), config.token_order)
        tokens = merged.sum(dim=-1) / exist.sum(dim=-1)  # [frames, tokens]
        return list(tokens.view(len(counts), -1))  # [N] each


def image_layout(config: VilaConfig, frames: int) -> VisualLayout:
    """Where the visual tokens of an image (one frame) or of a video lie."""
    side = config.merged_side
    cells = torch.arange(frames * side * side).view(frames, side, side)
    index = cells.transpose(1, 2) if config.token_order == "column_major" else cells
    # Patches may leave the edge of the image uncovered. If their number is odd, the last tokens
    # reach into the padding.
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    covered = patches * vision.patch_size / vision.image_size if config.splits[0] == 1 else 1.0
    extent = covered * 2 * side / config.feature_side
    grid = TokenGrid(index.contiguous(), (0.0, 0.0, extent, extent))
    return VisualLayout(frames * side * side, (grid,))
