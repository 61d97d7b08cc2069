"""Random tiny Command A Vision models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, siglip
from ._tiles import Tiles

WORDS = {"<image>": IMAGE, "<boi>": VISION_START, "<eoi>": VISION_END, "<break>": 82}


class Family(Tiles):
    architecture = "Cohere2Vision"

    @override
    def config(self, **text_options: Any) -> Any:
        # No prompt of the tests is longer than the window.
        options = {"model_type": "cohere2", "sliding_window": 1024}
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={**siglip(4), "model_type": "siglip_vision_model"},
            image_token_id=IMAGE,
            alignment_intermediate_size=64,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        tokenizer = word_tokenizer(
            WORDS,
            image_token="<image>",
            boi_token="<boi>",
            eoi_token="<eoi>",
            img_line_break_token="<break>",
        )
        # Its side of a tile in visual tokens.
        images = transformers.Cohere2VisionImageProcessor(
            size={"height": SIDE, "width": SIDE}, patch_size=4
        )
        return transformers.Cohere2VisionProcessor(images, tokenizer)
