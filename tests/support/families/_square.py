"""Families of images only: every image has one size and 16 visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tiny_models import IMAGE, TinyFamily, Visual
from torch import Tensor
from typing_extensions import override

SIDE, TOKENS = 32, 16


class Square(TinyFamily):
    """The numbers of an image only vary its content."""

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        pixels = torch.randn(3, SIDE, SIDE, generator=generator)
        return Visual("image", [IMAGE] * TOKENS, pixels, size)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual.pixels for own in visuals for visual in own]
        return {"pixel_values": torch.stack(found)} if found else {}


def siglip(patch: int) -> dict[str, Any]:
    """Configuration of a vision tower with patches of that many pixels a side."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": patch,
        "vision_use_head": False,
    }


def look_ahead(*convolutions: Any) -> None:
    """Let the outputs of 3 x 3 convolutions with stride 2 each see their own 2 x 2 inputs only."""
    for convolution in convolutions:
        convolution.weight.data[..., 0, :] = 0
        convolution.weight.data[..., 0] = 0
