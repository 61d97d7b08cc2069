"""Random tiny Idefics 3 models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._tiles import SIDE, TILE, TOKENS, TilesOfPrompts

WORDS = {
    "<image>": IMAGE,
    "<fake_token_around_image>": VISION_START,
    "<global-img>": TILE,
    "<end_of_utterance>": 82,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
    "initializer_range": 0.2,
}
SIZES = {"size": {"longest_edge": SIDE}, "max_image_size": {"longest_edge": SIDE}}


class Family(TilesOfPrompts):
    architecture = "Idefics3"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config=VISION,
            image_token_id=IMAGE,
            scale_factor=2,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        return transformers.Idefics3Processor(
            transformers.Idefics3ImageProcessor(**SIZES, do_image_splitting=False),
            word_tokenizer(WORDS),
            image_seq_len=TOKENS,
        )
