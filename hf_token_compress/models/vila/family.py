"""VILA1.5: square images, column by column; videos as frames with line breaks.

The line breaks between the frames of a video are text, so they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from typing_extensions import override

from ...prompt import Modality, TokenGrid, VisualLayout
from ..family import EncodedVisuals, ModelFamily
from .configuration import VilaConfig
from .modeling import VilaForConditionalGeneration, VilaModel

_VISION_OPTIONS = ("vision_feature_layer", "vision_feature_select_strategy")


class VilaFamily(ModelFamily):
    """`VilaForConditionalGeneration` and `VilaModel`."""

    model_classes = (VilaForConditionalGeneration, VilaModel)

    @override
    def encode(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        encoded = (inputs.get("mm_encoder_outputs") or {}).get(modality)
        if encoded is None:
            options = {name: inputs[name] for name in _VISION_OPTIONS if name in inputs}
            get_features = getattr(model, f"get_{modality}_features")
            encoded = get_features(inputs[self.pixel_inputs[modality]], return_dict=True, **options)
        features = list(encoded.pooler_output)
        tokens = model.config.image_seq_length
        layouts = [image_layout(model.config, len(own) // tokens) for own in features]
        return EncodedVisuals(features, layouts)


def image_layout(config: VilaConfig, frames: int) -> VisualLayout:
    """Where the visual tokens of an image (one frame) or of a video lie."""
    side = config.merged_side
    cells = torch.arange(frames * side * side).view(frames, side, side)
    index = cells.transpose(1, 2) if config.token_order == "column_major" else cells
    # Patches may leave the edge of the image uncovered. If their number is odd, the last tokens
    # reach into the padding.
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    covered = patches * vision.patch_size / vision.image_size if config.splits[0] == 1 else 1.0
    extent = covered * 2 * side / config.feature_side
    grid = TokenGrid(index.contiguous(), (0.0, 0.0, extent, extent))
    return VisualLayout(frames * side * side, (grid,))
