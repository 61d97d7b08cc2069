"""Random tiny Qwen2-VL models: rows and columns of an image count its visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tiny_models import (
    HIDDEN,
    IMAGE,
    TEXT_CONFIG,
    VIDEO,
    VISION_END,
    VISION_START,
    TinyFamily,
    Visual,
)
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLModel

PATCH_VALUES = 3 * 2 * 4 * 4


class TinyQwen2VL(TinyFamily):
    model_class = Qwen2VLForConditionalGeneration
    base_class = Qwen2VLModel

    def config(self, **text_options: Any) -> Qwen2VLConfig:
        rope = {
            "rope_type": "default",
            "mrope_section": [1, 1, 2],
            "rope_theta": 10000.0,
        }
        return Qwen2VLConfig(
            text_config={**TEXT_CONFIG, "rope_parameters": rope, **text_options},
            vision_config={
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": HIDDEN,
                "num_heads": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "mlp_ratio": 2,
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        frames, rows, columns = (1, *size) if len(size) == 2 else size
        pixels = torch.randn(4 * frames * rows * columns, PATCH_VALUES, generator=generator)
        placeholder = IMAGE if len(size) == 2 else VIDEO
        ids = [VISION_START, *[placeholder] * (frames * rows * columns), VISION_END]
        return Visual("image" if len(size) == 2 else "video", ids, pixels, (frames, rows, columns))

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual for own in visuals for visual in own if visual.kind == kind]
            if found:
                inputs[pixel_name] = torch.cat([visual.pixels for visual in found])
                sizes = torch.tensor([visual.size for visual in found])
                inputs[f"{kind}_grid_thw"] = sizes * torch.tensor([1, 2, 2])
        return inputs

    def position_ids(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Text order, then time, height and width: [4, B, S]."""
        mask = inputs["attention_mask"]
        visual, _ = model.base_model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            attention_mask=mask,
        )
        text = (mask.cumsum(-1) - 1).clamp(min=0)
        return torch.cat([text[None], visual], dim=0)

    def visual_tower(self, model: Any) -> Any:
        return model.model.visual
