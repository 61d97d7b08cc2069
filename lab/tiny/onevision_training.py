"""What is particular to the trainings of the tiny LLaVA-OneVision: its tower alone, then all.

The tower learns to give the visual tokens that the trained tiny Qwen2-VL's tower gives for the
same image, which the language model reads already. The joint training then gets it used to
its own tower, to positions on one axis, to every image coming twice (whole and as tiles), and
to clips.
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
    """How the tiny LLaVA-OneVision sees images of one tile, and clips."""
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
