"""Random tiny InternVL models: they take the features of all images as one tensor."""

from __future__ import annotations

from typing import Any

from tiny_models import IMAGE, TEXT_CONFIG
from typing_extensions import override

from ._square import SIDE, TOKENS, Square


class Family(Square):
    architecture = "InternVL"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [SIDE, SIDE],
                "patch_size": [4, 4],
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )
