"""Random tiny Granite Docling models: features of the vision tower for two layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers
from tiny_models import HIDDEN, IMAGE, TEXT_CONFIG, VISION_START, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._tiles import SIDE, TILE, TOKENS, TilesOfPrompts
from .idefics3 import VISION

WORDS = {
    "<image>": IMAGE,
    "<fake_token_around_image>": VISION_START,
    "<global-img>": TILE,
    "<row_1_col_1>": 82,
}


class Family(TilesOfPrompts):
    architecture = "GraniteDocling"
    since = "5.24.0"

    @override
    def config(self, **text_options: Any) -> Any:
        multipliers = {
            "embedding_multiplier": 1.0,
            "logits_scaling": 1.0,
            "residual_multiplier": 1.0,
            "attention_multiplier": 0.35,
        }
        return self.config_class(
            text_config={**TEXT_CONFIG, **multipliers, **text_options},
            vision_config={
                **VISION,
                "out_hidden_size": HIDDEN,
                "scale_factor": 2,
                "deepstack_visual_indexes": [0, 1],
            },
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        if inputs:
            inputs["pixel_attention_mask"] = inputs["pixel_values"].flatten(2).any(dim=-1)
        return inputs

    @override
    def processor(self) -> Any:
        size = {"height": SIDE, "width": SIDE}
        images = transformers.GraniteDoclingImageProcessor(size=size, max_patches=1)
        return transformers.GraniteDoclingProcessor(
            images, word_tokenizer(WORDS), image_seq_len=TOKENS
        )
