"""Random tiny PaliGemma models: the prompt sees itself in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import HIDDEN, IMAGE, TEXT_CONFIG, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._square import SIDE, TOKENS, Square, siglip


class Family(Square):
    architecture = "PaliGemma"
    answer_type = 1

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "gemma", "head_dim": 8, **text_options},
            vision_config={**siglip(8), "model_type": "siglip_vision_model"},
            image_token_index=IMAGE,
            projection_dim=HIDDEN,
            hidden_size=HIDDEN,
        )

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        return {**super().visual_inputs(visuals, ids), "token_type_ids": torch.zeros_like(ids)}

    @override
    def processor(self) -> Any:
        images = transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
        images.image_seq_length = TOKENS
        tokenizer = word_tokenizer({"<image>": IMAGE, "<begin>": 82}, image_token="<image>")
        tokenizer.bos_token = "<begin>"
        return transformers.PaliGemmaProcessor(images, tokenizer)

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        inputs = super().process(processor, **arguments)
        del inputs["labels"]
        return inputs
