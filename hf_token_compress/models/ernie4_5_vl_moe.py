"""ERNIE 4.5 VL: a visual token of a video shows several frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .family import ModelFamily, Size


class Ernie45Family(ModelFamily):
    """`Ernie4_5_VLMoeForConditionalGeneration` and `Ernie4_5_VLMoeModel`."""

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        merged = config.vision_config.temporal_merge_size if modality == "video" else 1
        sizes = [(frames // merged, height, width) for frames, height, width in sizes]
        return super().layouts(config, sizes, modality)
