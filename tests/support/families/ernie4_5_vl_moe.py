"""Random tiny ERNIE 4.5 VL models: experts of their own for visual tokens, and pairs of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VIDEO, VISION_END, VISION_START, Fault, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._grids import ROPE, VISION, Grids


class Family(Grids):
    architecture = "Ernie4_5_VLMoe"
    # Without a cache, `generate` does not lengthen `moe_mm_token_type_ids`.
    faults = {"cached": Fault("does not match the shape of the indexed tensor", IndexError)}
    patch_values = 3 * 4 * 4
    text_options = {
        "rope_parameters": ROPE,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": [32, 24],
    }
    ids = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "image_start_token_id": VISION_START,
        "image_end_token_id": VISION_END,
        "video_start_token_id": 96,
        "video_end_token_id": 97,
    }

    @override
    def config(self, **text_options: Any) -> Any:
        vision = {name: value for name, value in VISION.items() if name != "temporal_patch_size"}
        return self.config_class(
            text_config={**TEXT_CONFIG, **self.text_options, **text_options},
            vision_config={**vision, "temporal_merge_size": 2},
            **self.ids,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        if visual.kind == "image":
            return visual
        # A visual token shows two frames, and a patch only one.
        frames, rows, columns = visual.size
        pixels = torch.randn(8 * frames * rows * columns, self.patch_values, generator=generator)
        return Visual("video", [96, *visual.ids[1:-1], 97], pixels, (2 * frames, rows, columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        images = torch.isin(ids, torch.tensor([IMAGE, VISION_START, VISION_END]))
        videos = torch.isin(ids, torch.tensor([VIDEO, 96, 97]))
        return {**inputs, "moe_mm_token_type_ids": images.long() + 2 * videos.long()}

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_tower

    @override
    def processor(self) -> Any:
        words = {
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        }
        special = {word: self.ids[f"{name}_id"] for name, word in words.items()}
        sizes = {"patch_size": 4, "merge_size": 2}
        area = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        return transformers.Ernie4_5_VLMoeProcessor(
            transformers.Ernie4_5_VLMoeImageProcessor(**sizes, size=area),
            word_tokenizer(special, **words),
            transformers.Ernie4_5_VLMoeVideoProcessor(
                **sizes, size=area, do_sample_frames=False, draw_on_frames=False
            ),
        )

    @override
    def image_text(self, processor: Any) -> str:
        return "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"

    @override
    def video_text(self, processor: Any) -> str:
        return "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>"
