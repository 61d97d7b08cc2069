"""Images that are cut into tiles, each encoded as an image of its own.

Neither the inputs nor the configuration say how the tiles of an image lie on it, so each tile or
crop, the thumbnail, and each frame of a video counts as an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily
from .visuals import EncodedVisuals


class TiledFamily(ModelFamily):
    """The patches of a tile are a square, and a visual token joins a square of them."""

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        tiles = torch.cat(list(received))  # [tiles, patches]
        patches, tokens = (math.isqrt(number) for number in (tiles.shape[1], max(counts)))
        squares = tiles.unflatten(1, (1, patches, -1))  # [tiles, 1, rows, columns]
        pooled = avg_pool2d(squares, math.ceil(patches / tokens), ceil_mode=True)
        return list(pooled.flatten(1))  # [N] each


class JoinedTilesFamily(TiledFamily):
    """The stock model joins the tiles of each prompt, `tile_tokens` visual tokens each.

    A prompt without images has none.
    """

    @override
    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        visuals = super().features(model, inputs, modality)
        return visuals.split(self.tile_tokens(model.config, inputs))

    def tile_tokens(self, config: Any, inputs: Mapping[str, Any]) -> int:
        """Visual tokens of each tile."""
        vision = config.vision_config
        tokens: int = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
        return tokens
