"""Random tiny DeepSeek-VL models with a second vision tower of higher resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from . import deepseek_vl
from ._square import SIDE, TOKENS, look_ahead

FINE = 64


class Family(deepseek_vl.Family):
    architecture = "DeepseekVLHybrid"

    @override
    def config(self, **text_options: Any) -> Any:
        config = super().config(**text_options)
        config.high_res_vision_config = transformers.SamVisionConfig(
            hidden_size=32,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=FINE,
            patch_size=4,
            window_size=2,
            global_attn_indexes=[1],
            mlp_dim=48,
            initializer_range=0.2,
        )
        return config

    @override
    def initialise(self, model: Any) -> None:
        projector = model.base_model.high_res_vision_proj
        look_ahead(projector.conv1, projector.conv2)

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        pixels = torch.randn(3, FINE, FINE, generator=generator)
        return super().visual(size, alone, generator)._replace(pixels=pixels)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        if inputs:
            inputs["high_res_pixel_values"] = inputs["pixel_values"]
            inputs["pixel_values"] = inputs["pixel_values"][..., ::2, ::2]
        return inputs

    @override
    def processor(self) -> Any:
        return transformers.DeepseekVLHybridProcessor(
            transformers.DeepseekVLHybridImageProcessor(
                size={"height": SIDE, "width": SIDE},
                high_res_size={"height": FINE, "width": FINE},
            ),
            word_tokenizer({"<image>": IMAGE}, image_token="<image>"),
            num_image_tokens=TOKENS,
        )
