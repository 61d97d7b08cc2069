"""Gemma 4: images and videos of any size, whose patches are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily, Size, needed_input
from .visuals import EncodedVisuals


class Gemma4Family(ModelFamily):
    """Every patch comes with its column and row, -1 for padding."""

    @override
    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        needed_input(inputs, f"{modality}_position_ids", modality)
        return super().features(model, inputs, modality)

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        positions = needed_input(inputs, f"{modality}_position_ids", modality)
        pool = config.vision_config.pooling_kernel_size
        # Columns and rows in visual tokens of each image or frame.
        shapes = ((positions.amax(dim=1) + 1) // pool).tolist()
        if modality == "image":
            return [(1, rows, columns) for columns, rows in shapes]
        sizes: list[Size] = []
        start = 0
        for frames in needed_input(inputs, "num_frames_per_video", modality).tolist():
            columns, rows = shapes[start]
            sizes.append((frames, rows, columns))
            start += frames
        return sizes
