"""Visual tokens of images and clips, by the tiny VILA's modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from hf_token_compress.data.scenes import Scene
from hf_token_compress.models.vila import VilaProcessor

from .architecture import StockModel
from .joint_clips import VisualPath
from .packing import Packer, sequence_positions
from .vila_architecture import CLOSING, OPENING, SIDE


def image_pixels(processor: VilaProcessor, images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of any size as float32 [B, 3, 195, 195]."""
    pixels: torch.Tensor = processor.image_processor(list(images), return_tensors="pt")[
        "pixel_values"
    ]
    return pixels


def encode_images(model: StockModel, pixels: torch.Tensor) -> torch.Tensor:
    """Visual tokens [B, 64, D] of images, row by row; the prompt has them column by column."""
    tokens = torch.stack(list(model.model.get_image_features(pixels).pooler_output))
    return turned(tokens)


def turned(tokens: torch.Tensor) -> torch.Tensor:
    """Reorder tokens [B, 64, D] from row by row to column by column, or back."""
    return tokens.unflatten(1, (SIDE, SIDE)).transpose(1, 2).flatten(1, 2)


def visual_path(model: StockModel, processor: VilaProcessor) -> VisualPath:
    """The visual path for images, and for clips with a line break between frames."""
    (line_break,) = processor.tokenizer(CLOSING, add_special_tokens=False)["input_ids"]
    tokens = SIDE**2

    def encode(scenes: Sequence[Scene]) -> torch.Tensor:
        return encode_images(model, image_pixels(processor, [s.image for s in scenes]))

    def join(images: torch.Tensor, frames: int) -> torch.Tensor:
        shown = turned(images).unflatten(0, (-1, max(1, frames)))  # [B, frames, 64, D]
        word = model.get_input_embeddings().weight[line_break].to(shown.dtype)
        broken = torch.cat([shown, word.expand(*shown.shape[:2], 1, -1)], dim=2)
        # The line break after the last frame belongs to the closing.
        return broken.flatten(1, 2)[:, :-1]

    def text(frames: int) -> range:
        return range(tokens, frames * (tokens + 1) - 1, tokens + 1)

    return VisualPath(
        encode=encode,
        join=join,
        positions=lambda shape, frames: sequence_positions(max(1, frames) * (tokens + 1) - 1),
        packer=Packer(processor.tokenizer, OPENING, CLOSING),
        text=text,
    )
