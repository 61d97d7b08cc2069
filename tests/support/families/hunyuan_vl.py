"""Random tiny HunYuanVL models: newline features, and four rotary axes."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny_models import (
    IMAGE,
    IMAGE_PROMPTS,
    TEXT_CONFIG,
    TEXT_ONLY,
    TWO_TURNS,
    VISION_END,
    VISION_START,
    TinyFamily,
    Visual,
)
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._grids import ROPE, Grids


class Family(Grids):
    architecture = "HunYuanVL"
    # One axis numbers the images of all prompts, so that images of an earlier prompt matter.
    prompts = {**IMAGE_PROMPTS, "ragged": (TWO_TURNS, TEXT_ONLY)}
    patch_values = 3 * 4 * 4
    video_text = TinyFamily.video_text

    @override
    def config(self, **text_options: Any) -> Any:
        rope = {**ROPE, "mrope_section": [1, 1, 1, 1]}
        text = {**TEXT_CONFIG, "head_dim": 8, "rope_parameters": rope, **text_options}
        return self.config_class(
            text_config=text,
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 4,
                "max_image_size": 64,
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            im_start_id=VISION_START,
            im_end_id=VISION_END,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        rows, columns = size
        placeholders = [IMAGE] * (rows * (columns + 1) + 2)
        return visual._replace(ids=[VISION_START, *placeholders, VISION_END])

    @override
    def position_ids(self, model: Any, inputs: Any) -> Tensor:
        position_ids, _ = model.base_model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=inputs["attention_mask"],
        )
        return position_ids

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_tower

    @override
    def processor(self) -> Any:
        ids = {
            "image_token": IMAGE,
            "image_start_token": VISION_START,
            "image_end_token": VISION_END,
        }
        words = {name: f"<{name}>" for name in ids}
        tokenizer = word_tokenizer({words[name]: own for name, own in ids.items()}, **words)
        area = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        images = transformers.HunYuanVLImageProcessor(patch_size=4, size=area)
        return transformers.HunYuanVLProcessor(images, tokenizer)

    @override
    def image_text(self, processor: Any) -> str:
        return "<image_start_token><image_token><image_end_token>"
