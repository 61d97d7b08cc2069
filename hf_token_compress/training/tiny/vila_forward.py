"""Visual tokens of pictures and of clips, by the tiny VILA's own modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from hf_token_compress.models.vila import VilaProcessor
from hf_token_compress.scenes import Scene
from hf_token_compress.training.tiny.architecture import StockModel
from hf_token_compress.training.tiny.sight import LaidOut, Sight
from hf_token_compress.training.tiny.vila_architecture import CLOSING, OPENING, SIDE


def picture_pixels(processor: VilaProcessor, images: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, 195, 195) float32 of pictures of any size."""
    pixels: torch.Tensor = processor.image_processor(list(images), return_tensors="pt")[
        "pixel_values"
    ]
    return pixels


def encode_pictures(model: StockModel, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 64, D) visual tokens of pictures, row by row: not in the order of the prompt."""
    tokens = torch.stack(list(model.model.get_image_features(pixels).pooler_output))
    return turned(tokens)


def turned(tokens: torch.Tensor) -> torch.Tensor:
    """(B, 64, D) in the other order: from row by row to column by column, or back."""
    return tokens.unflatten(1, (SIDE, SIDE)).transpose(1, 2).flatten(1, 2)


def vila_sight(model: StockModel, processor: VilaProcessor) -> Sight:
    """How a model sees pictures, and clips with a line break between frames."""
    (line_break,) = processor.tokenizer(CLOSING, add_special_tokens=False)["input_ids"]

    def encode(scenes: Sequence[Scene]) -> torch.Tensor:
        return encode_pictures(model, picture_pixels(processor, [s.image for s in scenes]))

    def lay_out(pictures: torch.Tensor, frames: int) -> LaidOut:
        shown = turned(pictures).unflatten(0, (-1, max(1, frames)))  # [B, frames, 64, D]
        word = model.get_input_embeddings().weight[line_break].to(shown.dtype)
        breaks = word.expand(*shown.shape[:2], 1, -1)
        # The break after the last frame is the closing.
        tokens = torch.cat([shown, breaks], dim=2).flatten(1, 2)[:, :-1]
        text = torch.arange(1, tokens.shape[1] + 1) % (SIDE**2 + 1) == 0
        return tokens, text

    return Sight(encode, lay_out, OPENING, CLOSING)
