"""LLaVA-NeXT and LLaVA-NeXT-Video: every image is cut into tiles; a video is its pooled frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .anyres import AnyresFamily, AnyresGeometry
from .family import Size, needed_input


class LlavaNextFamily(AnyresFamily):
    """The size of an image is (height, width) in pixels, that of a video counts its tokens."""

    frame_pooling = "vision_resampler"
    packing_option = "vision_feature_select_strategy"

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        if modality == "video":
            side = AnyresGeometry(config).side // config.spatial_pool_stride
            return [(count // side**2, side, side) for count in counts]
        sizes = needed_input(inputs, "image_sizes", modality)
        return [(int(height), int(width)) for height, width in sizes]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        if modality == "video":
            return super().layouts(config, sizes, modality)
        return self.image_layouts(config, sizes)
