"""Random tiny Qianfan-OCR models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._tiles import SIDE, TOKENS, Tiles
from .internvl import NAMED, VISION, WORDS


class Family(Tiles):
    architecture = "QianfanOCR"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen3", "head_dim": 8, **text_options},
            vision_config=VISION,
            image_token_id=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        return transformers.QianfanOCRProcessor(
            transformers.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}),
            word_tokenizer(WORDS, **NAMED),
            image_seq_length=TOKENS,
        )

    @override
    def image_text(self, processor: Any) -> str:
        return str(processor.image_placeholder_token)
