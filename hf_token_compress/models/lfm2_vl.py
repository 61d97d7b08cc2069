"""LFM2-VL: images and tiles of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily, Size, needed_input


class Lfm2VlFamily(ModelFamily):
    """Each tile, and the thumbnail, counts as an image: the inputs do not say where tiles lie."""

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        shapes = needed_input(inputs, "spatial_shapes", modality)
        factor = config.downsample_factor
        return [(1, int(rows) // factor, int(columns) // factor) for rows, columns in shapes]
