"""Random tiny VILA1.5 models: every image has one size, so its numbers only vary its content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, PROMPTS, TEXT_CONFIG, VIDEO, TinyFamily, Visual
from tiny_processors import word_tokenizer
from torch import Tensor

from hf_token_compress.models.vila import (
    VilaConfig,
    VilaForConditionalGeneration,
    VilaModel,
    VilaProcessor,
)

# An odd grid of 7 x 7 patches, merged to 4 x 4 visual tokens.
SIDE, PATCH, TOKENS = 28, 4, 16
LINE_BREAK = 7


class Family(TinyFamily):
    prompts = PROMPTS
    model_class = VilaForConditionalGeneration
    base_class = VilaModel

    def config(self, **text_options: Any) -> VilaConfig:
        return VilaConfig(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": PATCH,
                "vision_use_head": False,
            },
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            initializer_range=0.2,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        if len(size) == 2:
            pixels = torch.randn(3, SIDE, SIDE, generator=generator)
            return Visual("image", [IMAGE] * TOKENS, pixels, size)
        frames = size[0]
        pixels = torch.randn(frames, 3, SIDE, SIDE, generator=generator)
        return Visual("video", [*[VIDEO] * TOKENS, LINE_BREAK] * frames, pixels, size)

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual.pixels for own in visuals for visual in own if visual.kind == kind]
            if found:
                inputs[pixel_name] = torch.stack(found)
        return inputs

    def processor(self) -> Any:
        words = {"<image>": IMAGE, "<video>": VIDEO, "\n": LINE_BREAK}
        return VilaProcessor(
            transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}),
            word_tokenizer(words),
            image_seq_length=TOKENS,
        )

    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)
