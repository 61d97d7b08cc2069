"""Mistral 3: images of any size, and a text token after every row of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .family import ModelFamily, Size, needed_input


class Mistral3Family(ModelFamily):
    """The size of an image is (height, width) in pixels."""

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        sizes = needed_input(inputs, "image_sizes", modality)
        return [(int(height), int(width)) for height, width in sizes]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        side = config.vision_config.patch_size * config.spatial_merge_size
        return [VisualLayout.row_major(1, height // side, width // side) for height, width in sizes]
