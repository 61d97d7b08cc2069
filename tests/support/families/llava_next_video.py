"""Random tiny LLaVA-NeXT-Video models: a frame is pooled to 2 x 2 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, PROMPTS, VIDEO, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from . import llava_next
from .llava_next import PATCH, SIZE, TILE


class Family(llava_next.Family):
    architecture = "LlavaNextVideo"
    prompts = PROMPTS

    @override
    def config(self, **text_options: Any) -> Any:
        config = super().config(**text_options)
        config.video_token_id = VIDEO
        return config

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        if len(size) == 2:
            return super().visual(size, alone, generator)
        pixels = torch.randn(size[0], 3, TILE, TILE, generator=generator)
        return Visual("video", [VIDEO] * (size[0] * 4), pixels, size)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        videos = [visual.pixels for own in visuals for visual in own if visual.kind == "video"]
        return {**inputs, "pixel_values_videos": torch.stack(videos)} if videos else inputs

    @override
    def processor(self) -> Any:
        return transformers.LlavaNextVideoProcessor(
            transformers.LlavaNextVideoVideoProcessor(
                size=SIZE, do_center_crop=False, do_sample_frames=False
            ),
            self.image_processor(),
            word_tokenizer({"<image>": IMAGE, "<video>": VIDEO}),
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )

    @override
    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)
