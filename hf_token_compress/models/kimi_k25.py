"""Kimi K2.5: frames of a video are pooled in chunks, each of which counts as a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily, Size, needed_input


class KimiK25Family(ModelFamily):
    """`Kimi_K25ForConditionalGeneration` and `Kimi_K25Model`."""

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        rows, columns = config.vision_config.merge_kernel_size
        grids = needed_input(inputs, f"{modality}_grid_thw", modality)
        return [(1, int(height) // rows, int(width) // columns) for _, height, width in grids]
