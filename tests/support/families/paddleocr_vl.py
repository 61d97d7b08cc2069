"""Random tiny PaddleOCR-VL models: patches of one frame each, images only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers
from tiny_models import IMAGE_PROMPTS, TEXT_CONFIG, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._grids import IDS, ROPE, Grids


class Family(Grids):
    architecture = "PaddleOCRVL"
    prompts = IMAGE_PROMPTS
    since = "5.24.0"
    patch_values = 3 * 4 * 4

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "head_dim": 8, "rope_parameters": ROPE, **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 4,
                "spatial_merge_size": 2,
            },
            **IDS,
            tie_word_embeddings=False,
        )

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].view(-1, 3, 4, 4)
        return inputs

    @override
    def processor(self) -> Any:
        images = transformers.PaddleOCRVLImageProcessor(
            patch_size=4, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        )
        return transformers.PaddleOCRVLProcessor(
            images, word_tokenizer(self.words, image_token="<|image_pad|>")
        )
