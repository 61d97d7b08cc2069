"""LLaVA-NeXT and LLaVA-NeXT-Video: every image is cut into tiles; a video is its pooled frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .anyres import AnyresGeometry
from .family import ModelFamily, Size, needed_input


class LlavaNextFamily(ModelFamily):
    """The size of an image is (height, width) in pixels, that of a video counts its tokens."""

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
        geometry = AnyresGeometry(config)
        return [geometry.tiled_image((height, width)) for height, width in sizes]

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
        features, inner = tiles[..., None], model.base_model  # [tiles, patches, 1]
        if modality == "video":
            return list(inner.vision_resampler(features).reshape(len(counts), -1))
        geometry, sizes = AnyresGeometry(model.config), inputs["image_sizes"]
        packed, _ = inner.pack_image_features(
            features.split([geometry.tiles((int(height), int(width))) for height, width in sizes]),
            sizes,
            vision_feature_select_strategy=model.config.vision_feature_select_strategy,
            image_newline=features.new_zeros(1),
        )
        return [own.flatten() for own in packed]  # [N] each
