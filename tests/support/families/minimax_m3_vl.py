"""Random tiny MiniMax M3 models: as without its sparse layers."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import HIDDEN, IMAGE, TEXT_CONFIG, VIDEO, VISION_END, VISION_START
from typing_extensions import override

from ._grids import Frames, InTextOrder


class Family(InTextOrder, Frames):
    architecture = "MiniMaxM3VL"
    words = {
        "]<]image[>[": IMAGE,
        "]<]video[>[": VIDEO,
        "]<]start of image[>[": VISION_START,
        "]<]end of image[>[": VISION_END,
    }
    processor_class = "MiniMaxM3VLProcessor"
    image_processor = "MiniMaxM3VLImageProcessor"
    video_processor = "MiniMaxM3VLVideoProcessor"

    @property
    @override
    def model_class(self) -> Any:
        return transformers.MiniMaxM3SparseForConditionalGeneration

    @override
    def config(self, **text_options: Any) -> Any:
        options = {
            "head_dim": 8,
            "rotary_dim": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "dense_intermediate_size": 64,
            "shared_intermediate_size": 32,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "index_n_heads": 2,
            "index_head_dim": 8,
        }
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 4,
                "initializer_range": 0.2,
            },
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            projector_hidden_size=HIDDEN,
            tie_word_embeddings=False,
        )

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_tower

    @override
    def image_text(self, processor: Any) -> str:
        return "]<]image[>["

    @override
    def video_text(self, processor: Any) -> str:
        return "]<]video[>["
