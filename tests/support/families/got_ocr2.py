"""Random tiny GOT-OCR 2 models."""

from __future__ import annotations

from typing import Any

import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, VISION_START
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import SIDE, TOKENS, Square, look_ahead

WORDS = {"<imgpad>": IMAGE, "<img>": VISION_START, "</img>": VISION_END}


class Family(Square):
    architecture = "GotOcr2"
    attentions = ("eager",)

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "hidden_size": 32,
                "output_channels": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 2,
                "window_size": 4,
                "global_attn_indexes": [1],
                "mlp_dim": 48,
                "initializer_range": 0.2,
            },
            image_token_index=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )

    @override
    def initialise(self, model: Any) -> None:
        projector = model.base_model.multi_modal_projector
        look_ahead(projector.conv_upsampler1, projector.conv_upsampler2)

    @override
    def processor(self) -> Any:
        images = transformers.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE})
        return transformers.GotOcr2Processor(images, word_tokenizer(WORDS))

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        (arguments["images"],) = arguments["images"]
        return super().process(processor, **arguments, num_image_tokens=TOKENS)
