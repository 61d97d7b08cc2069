"""GLM-4V: the frames of a video have the placeholder of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily


class Glm4vFamily(ModelFamily):
    """Token types tell images from videos."""

    @override
    def placeholders(self, config: Any, inputs: Mapping[str, Any], modality: Modality) -> Tensor:
        types: Tensor | None = inputs.get("mm_token_type_ids")
        if types is None:
            return super().placeholders(config, inputs, "image") & (modality == "image")
        return types == {"image": 1, "video": 2}[modality]
