"""Random tiny LightOnOCR models: as Mistral 3, without tokens between the rows of an image."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, Visual
from tiny_processors import word_tokenizer
from typing_extensions import override

from . import mistral3


class Family(mistral3.Family):
    architecture = "LightOnOcr"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen3", "head_dim": 8, **text_options},
            vision_config=mistral3.VISION,
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_encoder

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        return visual._replace(ids=[token for token in visual.ids if token == IMAGE])

    @override
    def processor(self) -> Any:
        special = {"[IMG]": IMAGE, "[IMG_BREAK]": mistral3.ROW_BREAK, "[IMG_END]": VISION_END}
        tokenizer = word_tokenizer(
            special,
            image_token="[IMG]",
            image_break_token="[IMG_BREAK]",
            image_end_token="[IMG_END]",
        )
        images = transformers.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8)
        return transformers.LightOnOcrProcessor(images, tokenizer, patch_size=4)
