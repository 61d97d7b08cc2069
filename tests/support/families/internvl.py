"""Random tiny InternVL models: they take the features of all tiles as one tensor."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VIDEO, VISION_END, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._tiles import SIDE, TOKENS, Tiles

WORDS = {"<IMG_CONTEXT>": IMAGE, "<img>": VISION_START, "</img>": VISION_END, "<video>": VIDEO}
NAMED = {
    "context_image_token": "<IMG_CONTEXT>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": [SIDE, SIDE],
    "patch_size": [4, 4],
    "initializer_range": 0.2,
}


class Family(Tiles):
    architecture = "InternVL"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config=VISION,
            image_token_id=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        return transformers.InternVLProcessor(
            transformers.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}),
            word_tokenizer(WORDS, **NAMED),
            transformers.InternVLVideoProcessor(size={"height": SIDE, "width": SIDE}),
            image_seq_length=TOKENS,
        )
