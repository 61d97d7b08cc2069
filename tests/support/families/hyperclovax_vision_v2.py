"""Random tiny HyperCLOVA X SEED Vision models: the vision tower of Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

from tiny_models import HIDDEN, TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, VISION, InTextOrder


class Family(InTextOrder):
    architecture = "HyperCLOVAXVisionV2"
    since = "5.24.0"

    @override
    def config(self, **text_options: Any) -> Any:
        windows = {"window_size": 16, "fullatt_block_indexes": [1]}
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "hyperclovax", **text_options},
            vision_config={
                **VISION,
                **windows,
                "model_type": "qwen2_5_vl_vision",
                "out_hidden_size": HIDDEN,
            },
            image_token_id=IDS["image_token_id"],
            video_token_id=IDS["video_token_id"],
            tie_word_embeddings=False,
        )

    @override
    def video_text(self, processor: Any) -> str:
        return "<|video_pad|>"

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_model
