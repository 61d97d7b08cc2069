"""Perception LM: videos are encoded as images are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from ..prompt import Modality
from .tiles import TiledFamily
from .visuals import EncodedVisuals


class PerceptionLMFamily(TiledFamily):
    """Each tile and each frame counts as an image or video."""

    @override
    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        pixels = inputs.get("pixel_values_videos")
        if modality == "image" or pixels is None:
            return super().features(model, inputs, modality)
        return super().features(model, {"pixel_values": pixels}, "image")
