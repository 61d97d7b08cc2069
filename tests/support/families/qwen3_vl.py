"""Random tiny Qwen3-VL models: layers add features of the vision tower to their outputs."""

from __future__ import annotations

from typing import Any

from tiny_models import HIDDEN, TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, ROPE, VISION, Frames


class Family(Frames):
    architecture = "Qwen3VL"
    video_processor = "Qwen3VLVideoProcessor"

    @override
    def config(self, **text_options: Any) -> Any:
        deepstack = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        return self.config_class(
            text_config={**TEXT_CONFIG, "head_dim": 8, "rope_parameters": ROPE, **text_options},
            vision_config={**VISION, **deepstack, "out_hidden_size": HIDDEN},
            **IDS,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
