"""LLaVA: square images, or images of any size if its tower is Pixtral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily, Size


class LlavaFamily(ModelFamily):
    """With a Pixtral tower, a text token stands after every row of visual tokens."""

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return super().sizes(config, inputs, modality, counts)
        patch = config.vision_config.patch_size
        return [(1, int(height) // patch, int(width) // patch) for height, width in sizes]
