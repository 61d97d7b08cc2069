"""Random tiny LLaVA models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, Square, siglip


class Family(Square):
    architecture = "Llava"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={**siglip(8), "model_type": "siglip_vision_model"},
            image_token_id=IMAGE,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        size = {"height": SIDE, "width": SIDE}
        return transformers.LlavaProcessor(
            transformers.SiglipImageProcessor(size=size),
            word_tokenizer({"<image>": IMAGE}),
            patch_size=8,
            vision_feature_select_strategy="full",
        )
