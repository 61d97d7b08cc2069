"""Random tiny Perception LM models: every image has two tiles, and frames are tiles too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from tiny_models import (
    IMAGE,
    IMAGE_PROMPTS,
    PROMPTS,
    TEXT_CONFIG,
    VIDEO,
    Fault,
    TinyFamily,
    Visual,
)
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

PATCH, TILE = 14, 56
TOKENS = (TILE // PATCH // 2) ** 2

NO_CHUNKS = Fault("missing 1 required positional argument", TypeError, since="5.23.0")
NO_VIDEO_CHUNKS = Fault("Chunked prefill cannot split", ValueError, since="5.23.0")
VIDEO_PROMPTS = ("one_video", "several_videos", "image_and_video", "ragged_videos")


class Family(TinyFamily):
    architecture = "PerceptionLM"
    prompts = PROMPTS
    faults = {
        **{f"chunked-{title}": NO_CHUNKS for title in IMAGE_PROMPTS if title != "text_only"},
        **{f"chunked-{title}": NO_VIDEO_CHUNKS for title in VIDEO_PROMPTS},
    }
    stock_differs = dict.fromkeys(
        ("beams-several_videos", "beams-ragged_videos"), "beams get the videos of other beams"
    )

    @override
    def config(self, **text_options: Any) -> Any:
        pytest.importorskip("timm")
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={
                "model_type": "timm_wrapper",
                "architecture": "vit_pe_core_large_patch14_336",
                "model_args": {
                    "embed_dim": 64,
                    "img_size": (TILE, TILE),
                    "depth": 2,
                    "global_pool": "",
                    "use_post_transformer_norm": False,
                    "init_values": 0.1,
                    "ref_feat_shape": (TILE // PATCH, TILE // PATCH),
                },
            },
            projector_pooling_ratio=2,
            vision_use_cls_token=True,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        tiles = size[0] if len(size) == 3 else 2
        pixels = torch.randn(tiles, 3, TILE, TILE, generator=generator)
        if len(size) == 2:
            return Visual("image", [IMAGE] * (tiles * TOKENS), pixels, size)
        return Visual("video", [VIDEO] * (tiles * TOKENS), pixels, size)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {}
        for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual.pixels for own in visuals for visual in own if visual.kind == kind]
            if found:
                inputs[name] = torch.stack(found)
        return inputs

    @override
    def processor(self) -> Any:
        tokenizer = word_tokenizer(
            {"<image>": IMAGE, "<video>": VIDEO}, image_token="<image>", video_token="<video>"
        )
        # One tile, so that it is the image.
        images = transformers.PerceptionLMImageProcessor(
            tile_size=TILE, vision_input_type="vanilla"
        )
        videos = transformers.PerceptionLMVideoProcessor(size={"height": TILE, "width": TILE})
        return transformers.PerceptionLMProcessor(
            videos, images, tokenizer, patch_size=PATCH, pooling_ratio=2
        )
