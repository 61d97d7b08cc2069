"""Qwen2-VL: 2 x 2 merged patches, one run of placeholders per image, 3-D rotary positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor
from typing_extensions import override

from ..scoring_layer import ScoringLayer
from .family import ModelFamily


class Qwen2VLFamily(ModelFamily):
    """`Qwen2VLForConditionalGeneration` and `Qwen2VLModel`."""

    @override
    def scoring_layer(self, model: Any, depth: int = 0) -> ScoringLayer:
        layer = super().scoring_layer(model, depth)

        def rotary(hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
            # The rotary module takes the last three axes: time, height and width.
            axes = position_ids if position_ids.ndim == 3 else position_ids[None]
            return layer.rotary(hidden, axes[-3:])

        return replace(layer, rotary=rotary)
