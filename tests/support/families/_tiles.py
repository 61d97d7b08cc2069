"""Families that cut an image into tiles, each encoded as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tiny_models import IMAGE, VISION_END, VISION_START, Visual
from torch import Tensor
from typing_extensions import override

from ._square import SIDE, TOKENS, Square

TILE = 81


class Tiles(Square):
    """An image that is wider than high is two tiles; a text token stands before each of them."""

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        rows, columns = size
        tiles = 2 if columns > rows else 1
        pixels = torch.randn(tiles, 3, SIDE, SIDE, generator=generator)
        ids = [TILE, *[IMAGE] * TOKENS] * tiles
        return Visual("image", [VISION_START, *ids, VISION_END], pixels, size)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual.pixels for own in visuals for visual in own]
        return {"pixel_values": torch.cat(found)} if found else {}

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        # One tile, so that it is the image.
        return super().process(processor, **arguments, images_kwargs={"crop_to_patches": False})


class TilesOfPrompts(Tiles):
    """Every prompt has as many tiles as the one with most: the others are empty."""

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        tiles = [[tile for visual in own for tile in visual.pixels] for own in visuals]
        most = max(map(len, tiles))
        if most == 0:
            return {}
        empty = torch.zeros(3, SIDE, SIDE)
        padded = [torch.stack([*own, *[empty] * (most - len(own))]) for own in tiles]
        return {
            "pixel_values": torch.stack(padded),
            "pixel_attention_mask": torch.ones(len(tiles), most, SIDE, SIDE, dtype=torch.int64),
        }

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_model

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        return Square.process(self, processor, **arguments)
