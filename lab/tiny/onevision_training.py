"""How the tiny LLaVA-OneVision computes visual tokens in training.

Its tower first learns the visual tokens of the trained tiny Qwen2-VL, which the language model can
already read. The joint training then adapts the language model to this tower, to positions on one
axis, to seeing every image twice (whole and as tiles), and to clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import Scene

from .architecture import StockModel
from .joint_clips import VisualPath
from .onevision_architecture import CLOSING, OPENING, POOLED
from .onevision_forward import (
    IMAGE_TOKENS,
    clip_tokens,
    encode_tiles,
    image_tokens,
    tile_pixels,
)
from .packing import Packer, sequence_positions


def visual_path(model: StockModel, tokenizer: PreTrainedTokenizerBase) -> VisualPath:
    """The visual path for clips and for images with one tile."""
    return VisualPath(
        encode=lambda scenes: encode_tiles(model, _pixels(scenes)),
        join=lambda tiles, frames: (
            clip_tokens(model, tiles, frames) if frames else image_tokens(model, tiles)
        ),
        positions=lambda shape, frames: sequence_positions(
            frames * POOLED**2 + 1 if frames else IMAGE_TOKENS
        ),
        packer=Packer(tokenizer, OPENING, CLOSING),
    )


def _pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    return tile_pixels([scene.image for scene in scenes])
