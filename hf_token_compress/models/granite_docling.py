"""Granite Docling: tiles have four times as many tokens where the processor asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from .tiles import JoinedTilesFamily


class GraniteDoclingFamily(JoinedTilesFamily):
    """`GraniteDoclingForConditionalGeneration` and `GraniteDoclingModel`."""

    @override
    def tile_tokens(self, config: Any, inputs: Mapping[str, Any]) -> int:
        vision = config.vision_config
        joined = (
            vision.scale_factor
            if inputs.get("tile_fine_mask") is None
            else vision.scale_factor // 2
        )
        tokens: int = (vision.image_size // vision.patch_size // joined) ** 2
        return tokens
