"""Random tiny DeepSeek-VL models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, TOKENS, Square, siglip


class Family(Square):
    architecture = "DeepseekVL"
    # The processor pads images to squares, and its output does not say how.
    image_sizes = ((40, 40), (64, 64))

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={**siglip(8), "model_type": "siglip_vision_model"},
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_model

    @override
    def processor(self) -> Any:
        return transformers.DeepseekVLProcessor(
            transformers.DeepseekVLImageProcessor(size={"height": SIDE, "width": SIDE}),
            word_tokenizer({"<image>": IMAGE}, image_token="<image>"),
            num_image_tokens=TOKENS,
        )
