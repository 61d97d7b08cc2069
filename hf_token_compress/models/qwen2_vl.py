"""Qwen2-VL: 2 x 2 merged patches, one run of placeholders per image, 3-D rotary positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
)
from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .family import EncodedVisuals, ModelFamily


class Qwen2VLFamily(ModelFamily):
    """`Qwen2VLForConditionalGeneration` and `Qwen2VLModel`."""

    model_classes = (Qwen2VLForConditionalGeneration, Qwen2VLModel)
    consumed_inputs = ("image_grid_thw", "video_grid_thw")

    @override
    def encode(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        grid_name = f"{modality}_grid_thw"
        grid_thw = inputs.get(grid_name)
        if grid_thw is None:
            raise ValueError(
                f"The prompt has {modality}s, but {grid_name} is missing: pass everything that "
                "the processor returned."
            )
        grids: list[list[int]] = grid_thw.tolist()  # [frames, height, width] each
        encoded = (inputs.get("mm_encoder_outputs") or {}).get(modality)
        if encoded is None:
            pixel_name = self.pixel_inputs[modality]
            pixels = inputs[pixel_name]
            patches = sum(math.prod(grid) for grid in grids)
            if len(pixels) != patches:
                raise ValueError(
                    f"{pixel_name} has {len(pixels)} patches, but {grid_name} counts {patches}: "
                    "pass both from the same processor call."
                )
            get_features = getattr(model, f"get_{modality}_features")
            encoded = get_features(pixels, grid_thw, return_dict=True)
        merge = model.config.vision_config.spatial_merge_size
        layouts = [
            VisualLayout.row_major(frames, height // merge, width // merge)
            for frames, height, width in grids
        ]
        return EncodedVisuals(list(encoded.pooler_output), layouts)

    @override
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        given: Tensor | None = inputs.get("position_ids")
        if given is not None:
            return given
        token_types = inputs.get("mm_token_type_ids")
        if token_types is None:
            raise ValueError(
                "mm_token_type_ids is missing, but Qwen2-VL needs it to place visual tokens: "
                "pass everything that the processor returned."
            )
        # [3, B, S]: time, height, width
        visual_positions, _ = model.base_model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=token_types,
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            attention_mask=attention_mask.long(),
        )
        text_positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # [B, S]
        return torch.cat([text_positions[None], visual_positions.to(text_positions)], dim=0)

    @override
    def generation_position_ids(self, attention_mask: Tensor) -> None:
        return None

    @override
    def text_order_axis(self, position_ids: Tensor) -> int | None:
        return 0 if position_ids.ndim == 3 and position_ids.shape[0] == 4 else None

    @override
    def structure_ids(self, model: Any) -> set[int]:
        names = ("vision_start_token_id", "vision_end_token_id")
        ids = (getattr(model.config, name, None) for name in names)
        return {token for token in ids if token is not None}
