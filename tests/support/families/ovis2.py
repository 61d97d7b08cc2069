"""Random tiny Ovis2 models: features are mixtures of a table, and so are the tokens around."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import (
    HIDDEN,
    IMAGE,
    IMAGE_PROMPTS,
    TEXT_CONFIG,
    VIDEO,
    VISION_END,
    VISION_START,
    VOCABULARY,
    Fault,
)
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._tiles import SIDE, TOKENS, Tiles

# It does not suppress the ids of rows and columns, but no prompt has them.
WORDS = {
    "<image>": 82,
    "<IMG_ATOM>": IMAGE,
    "<IMG_START>": VISION_START,
    "<IMG_GRID>": VIDEO,
    "<IMG_COL>": 83,
    "<IMG_ROW>": 84,
    "<IMG_END>": VISION_END,
}


class Family(Tiles):
    architecture = "Ovis2"
    faults = dict.fromkeys(
        (f"chunked-{title}" for title in IMAGE_PROMPTS if title != "text_only"),
        Fault("not subscriptable", TypeError, since="5.23.0"),
    )

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 4,
                "vocab_size": 40,
                "hidden_stride": 2,
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            visual_indicator_token_ids=list(WORDS.values())[2:],
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            tie_word_embeddings=False,
        )

    @override
    def processor(self) -> Any:
        images = transformers.Ovis2ImageProcessor(size={"height": SIDE, "width": SIDE})
        return transformers.Ovis2Processor(images, word_tokenizer(WORDS), image_seq_length=TOKENS)
