"""Random tiny Aria models: every visual token sees the whole image."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, Visual
from tiny_processors import word_tokenizer
from typing_extensions import override

from ._square import TOKENS, Square

# Pixels a side of an image of its processor, and patches of that many pixels a side.
LARGE, PATCH = 490, 70


class Family(Square):
    architecture = "Aria"
    since = "5.24.0"

    @override
    def config(self, **text_options: Any) -> Any:
        experts = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "aria_text", **experts, **text_options},
            vision_config={
                "model_type": "idefics3_vision",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": LARGE,
                "patch_size": PATCH,
                "initializer_range": 0.2,
            },
            projector_patch_to_query_dict={4: TOKENS, (LARGE // PATCH) ** 2: TOKENS},
            image_token_index=IMAGE,
            initializer_range=0.2,
            tie_word_embeddings=False,
        )

    @override
    def initialise(self, model: Any) -> None:
        model.base_model.multi_modal_projector.query.data.normal_()

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        pixels = torch.randn(3, 2 * PATCH, 2 * PATCH, generator=generator)
        return Visual("image", [IMAGE] * TOKENS, pixels, size)

    @override
    def processor(self) -> Any:
        images = transformers.AriaImageProcessor(max_image_size=LARGE, min_image_size=PATCH)
        tokenizer = word_tokenizer({"<image>": IMAGE}, image_token="<image>")
        return transformers.AriaProcessor(images, tokenizer, size_conversion={LARGE: TOKENS})

    @override
    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        sizes = {"max_image_size": LARGE, "min_image_size": PATCH}
        return super().process(processor, **arguments, images_kwargs=sizes)
