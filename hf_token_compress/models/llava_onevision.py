"""LLaVA-OneVision: images as a whole image, tiles and newlines; videos as pooled frames.

The only image of a prompt is encoded twice: shrunk to one tile, and cut into tiles whose tokens
form one fine grid with a newline token after every row. If a prompt has several images, each is
one tile and one newline token. A video is its frames and one newline token.

Newline tokens lie on no grid, but they are visual tokens like the others: each is kept or dropped
by its own score. They all are the same trained vector, so dropping one loses no information, and
every kept token keeps its own position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .anyres import AnyresGeometry
from .family import ModelFamily, Size, needed_input
from .visuals import EncodedVisuals


class LlavaOnevisionFamily(ModelFamily):
    """`LlavaOnevisionForConditionalGeneration` and `LlavaOnevisionModel`.

    The size of an image is (height, width) in pixels and whether it is cut into tiles, that of a
    video its number of frames.
    """

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
            geometry = AnyresGeometry(config)
            return [(geometry.frames(count),) for count in counts]
        sizes = needed_input(inputs, "image_sizes", modality)
        images = inputs.get("batch_num_images")
        tiled = [True] * len(sizes)
        if images is not None:
            tiled = [int(count) == 1 for count in images for _ in range(int(count))]
        if len(tiled) != len(sizes):
            raise ValueError(
                f"batch_num_images counts {len(tiled)} images, but image_sizes has "
                f"{len(sizes)}: pass both from the same processor call."
            )
        return [(int(size[0]), int(size[1]), own) for size, own in zip(sizes, tiled, strict=True)]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        geometry = AnyresGeometry(config)
        if modality == "video":
            return [geometry.video(frames) for (frames,) in sizes]
        return [
            (geometry.tiled_image if tiled else geometry.one_of_several_images)((height, width))
            for height, width, tiled in sizes
        ]

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        (tiles,) = received
        # The model arranges them like features, of width 1.
        features = tiles[..., None]  # [tiles, patches, 1]
        inner, config = model.base_model, model.config
        if modality == "video":
            frames = inner.apply_pooling(features)  # [videos * frames, tokens, 1]
            videos = frames.reshape(len(counts), -1)  # [videos, frames * tokens]
            return list(torch.nn.functional.pad(videos, (0, 1)))
        geometry = AnyresGeometry(config)
        sizes = self.sizes(config, inputs, modality, counts)
        tiles_of_images = [
            geometry.tiles((height, width)) if tiled else 1 for height, width, tiled in sizes
        ]
        packed, _ = inner.pack_image_features(
            features.split(tiles_of_images),
            inputs["image_sizes"],
            image_newline=features.new_zeros(1),
            vision_aspect_ratio=config.vision_aspect_ratio,
        )
        return [own.flatten() for own in packed]  # [N] each
