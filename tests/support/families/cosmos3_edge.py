"""Random tiny Cosmos 3 Edge models: every frame has its own patches."""

from __future__ import annotations

from typing import Any

from tiny_models import TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, ROPE, Frames


class Family(Frames):
    architecture = "Cosmos3Edge"
    since = "5.24.0"
    patch_values = 3 * 4 * 4
    temporal_patch = 1
    image_processor = "Cosmos3EdgeImageProcessor"
    video_processor = "Cosmos3EdgeVideoProcessor"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "head_dim": 8, "rope_parameters": ROPE, **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 4,
                "num_patches": 64,
                "spatial_merge_size": 2,
            },
            projector_hidden_size=64,
            **IDS,
            tie_word_embeddings=False,
        )

    @override
    def video_text(self, processor: Any) -> str:
        return "<|video_pad|>"

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        if "videos" in arguments:
            arguments["return_metadata"] = True
        inputs = super().process(processor, **arguments, return_mm_token_type_ids=True)
        inputs.pop("video_metadata", None)
        return inputs
