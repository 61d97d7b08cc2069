"""Random tiny Aya Vision models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, siglip
from ._tiles import TILE, Tiles

WORDS = {
    "<image>": 82,
    "<|START_OF_IMG|>": VISION_START,
    "<|END_OF_IMG|>": VISION_END,
    "<|IMG_PATCH|>": IMAGE,
    "TILE_GLOBAL": TILE,
}


class Family(Tiles):
    architecture = "AyaVision"

    @override
    def config(self, **text_options: Any) -> Any:
        # No prompt of the tests is longer than the window.
        options = {"model_type": "cohere2", "sliding_window": 1024}
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={**siglip(4), "model_type": "siglip_vision_model"},
            image_token_index=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        return transformers.AyaVisionProcessor(
            transformers.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}),
            word_tokenizer(WORDS),
            patch_size=4,
            img_size=SIDE,
            downsample_factor=2,
        )
