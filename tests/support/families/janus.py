"""Random tiny Janus models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import HIDDEN, IMAGE, TEXT_CONFIG, VISION_END, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, TOKENS, Square

WORDS = {"<image>": IMAGE, "<boi>": VISION_START, "<eoi>": VISION_END}


class Family(Square):
    architecture = "Janus"
    # The processor pads images to squares, and its output does not say how.
    image_sizes = ((40, 40), (64, 64))

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 8,
                "projection_dim": HIDDEN,
                "num_image_tokens": TOKENS,
                "initializer_range": 0.2,
            },
            # Draws images, which is not what these tests are about.
            vq_config={
                "embed_dim": 8,
                "num_embeddings": 16,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
                "projection_dim": HIDDEN,
                "image_token_embed_dim": HIDDEN,
            },
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_model

    @override
    def processor(self) -> Any:
        tokenizer = word_tokenizer(
            WORDS, image_token="<image>", boi_token="<boi>", eoi_token="<eoi>"
        )
        images = transformers.JanusImageProcessor(size={"height": SIDE, "width": SIDE})
        return transformers.JanusProcessor(images, tokenizer, num_image_tokens=TOKENS)
