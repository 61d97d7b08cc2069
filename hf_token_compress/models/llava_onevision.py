"""LLaVA-OneVision: images as a whole image, tiles and newlines; videos as pooled frames.

The only image of a prompt is cut into tiles. Each of several is one tile and one newline token. A
video is its frames and one newline token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .anyres import AnyresFamily, AnyresGeometry
from .family import Size, needed_input
from .visuals import EncodedVisuals


class LlavaOnevisionFamily(AnyresFamily):
    """The size of a video is its number of frames."""

    frame_pooling = "apply_pooling"
    packing_option = "vision_aspect_ratio"

    @override
    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        pixels = inputs.get("pixel_values_videos")
        if modality == "video" and pixels is not None and getattr(pixels, "ndim", None) != 5:
            raise ValueError(
                "pixel_values_videos must be one tensor [videos, frames, channels, height, "
                "width]: sample the same number of frames from each video."
            )
        return super().features(model, inputs, modality)

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        if modality == "video":
            return [(AnyresGeometry(config).frames(count),) for count in counts]
        sizes, images = (
            needed_input(inputs, "image_sizes", modality),
            inputs.get("batch_num_images"),
        )
        groups = [1] * len(sizes) if images is None else [int(count) for count in images]
        if sum(groups) != len(sizes):
            raise ValueError(
                f"batch_num_images counts {sum(groups)} images, but image_sizes has {len(sizes)}: "
                "pass both from the same processor call."
            )
        tiled = [count == 1 for count in groups for _ in range(count)]
        return [(int(size[0]), int(size[1]), own) for size, own in zip(sizes, tiled, strict=True)]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        if modality == "video":
            return [AnyresGeometry(config).video(frames) for (frames,) in sizes]
        return self.image_layouts(config, sizes)
