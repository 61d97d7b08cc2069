"""Random tiny VipLLaVA models: features of several layers, without the first token."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, Square

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "projection_dim": 16,
}


class Family(Square):
    architecture = "VipLlava"

    @override
    def config(self, **text_options: Any) -> Any:
        layers = {"vision_feature_layers": [-1, 1], "vision_feature_layer": [-1, 1]}
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config=CLIP,
            image_token_index=IMAGE,
            tie_word_embeddings=False,
            **layers,
        )

    @override
    def processor(self) -> Any:
        size = {"height": SIDE, "width": SIDE}
        return transformers.LlavaProcessor(
            transformers.CLIPImageProcessor(size=size, do_center_crop=False),
            word_tokenizer({"<image>": IMAGE}),
            patch_size=8,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
