"""Random tiny Kimi K2.5 models: the frames of a video are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import (
    IMAGE,
    PROMPTS,
    TEXT_CONFIG,
    VIDEO,
    VISION_END,
    VISION_START,
    TinyFamily,
    Visual,
)
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

WORDS = {"<|media_pad|>": IMAGE, "<|kimi_k25_video_placeholder|>": VIDEO}
PATCH, CHUNK = 4, 8
EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 6,
}


class Family(TinyFamily):
    architecture = "Kimi_K25"
    since = "5.24.0"
    prompts = PROMPTS

    @override
    def config(self, **text_options: Any) -> Any:
        options = {"model_type": "deepseek_v3", **EXPERTS, **LATENT}
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": PATCH,
                "pos_emb_height": 8,
                "pos_emb_width": 8,
                "pos_emb_time": CHUNK,
            },
            projection_hidden_size=32,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        frames, rows, columns = (1, *size) if len(size) == 2 else size
        pixels = torch.randn(4 * frames * rows * columns, 3, PATCH, PATCH, generator=generator)
        token = IMAGE if len(size) == 2 else VIDEO
        ids = [VISION_START, *[token] * (rows * columns), VISION_END]
        kind = "image" if len(size) == 2 else "video"
        return Visual(kind, ids, pixels, (frames, 2 * rows, 2 * columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual for own in visuals for visual in own if visual.kind == kind]
            if found:
                inputs[pixel_name] = torch.cat([visual.pixels for visual in found])
                inputs[f"{kind}_grid_thw"] = torch.tensor([visual.size for visual in found])
        return inputs

    @override
    def processor(self) -> Any:
        size = {"max_height": 64, "max_width": 64}
        return transformers.Kimi_K25Processor(
            transformers.Kimi_K25ImageProcessor(size=size, patch_size=PATCH),
            word_tokenizer(WORDS),
            transformers.Kimi_K25VideoProcessor(
                size=size, patch_size=PATCH, temporal_patch_size=CHUNK, do_sample_frames=False
            ),
        )

    @override
    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)
