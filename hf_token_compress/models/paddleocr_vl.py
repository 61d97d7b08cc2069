"""PaddleOCR-VL: its processor leaves patches in rows, and its projector merges squares of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily


class PaddleOcrVlFamily(ModelFamily):
    """`PaddleOCRVLForConditionalGeneration` and `PaddleOCRVLModel`."""

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        merge = model.config.vision_config.spatial_merge_size
        patches = torch.cat([own.flatten() for own in received])  # [patches]
        sizes = self.sizes(model.config, inputs, modality, counts)
        found = patches.split([frames * height * width for frames, height, width in sizes])
        return [
            own.view(-1, height // merge, merge, width // merge, merge).mean((2, 4)).flatten()
            for own, (_, height, width) in zip(found, sizes, strict=True)
        ]
