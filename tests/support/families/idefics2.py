"""Random tiny Idefics 2 models: every visual token sees the whole image."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import HIDDEN, IMAGE, TEXT_CONFIG, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._tiles import SIDE, TOKENS, TilesOfPrompts
from .idefics3 import VISION

WORDS = {"<image>": IMAGE, "<fake_token_around_image>": VISION_START, "<end_of_utterance>": 82}


class Family(TilesOfPrompts):
    architecture = "Idefics2"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8, **text_options},
            vision_config=VISION,
            perceiver_config={
                "hidden_size": HIDDEN,
                "resampler_n_latents": TOKENS,
                "resampler_depth": 1,
                "resampler_n_heads": 4,
                "resampler_head_dim": 8,
                "num_key_value_heads": 2,
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        images = transformers.Idefics2ImageProcessor(
            size={"shortest_edge": SIDE // 2, "longest_edge": SIDE}, do_image_splitting=False
        )
        return transformers.Idefics2Processor(images, word_tokenizer(WORDS), image_seq_len=TOKENS)
