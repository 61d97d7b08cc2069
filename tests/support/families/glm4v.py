"""Random tiny GLM-4V models: videos have the placeholder of images, and their own token type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tiny_models import (
    IMAGE,
    IMAGE_PROMPTS,
    ONE_VIDEO,
    TEXT_ONLY,
    TWO_VIDEOS,
    VIDEO,
    VISION_END,
    VISION_START,
    Fault,
    Visual,
)
from torch import Tensor
from typing_extensions import override

from ._grids import Frames

VIDEOS = (ONE_VIDEO, TEXT_ONLY, TWO_VIDEOS)


class Family(Frames):
    architecture = "Glm4v"
    words = {
        "<|image|>": IMAGE,
        "<|video|>": VIDEO,
        "<|begin_of_image|>": VISION_START,
        "<|end_of_image|>": VISION_END,
        "<|begin_of_video|>": 96,
        "<|end_of_video|>": 97,
    }
    vision_options = {"image_size": 32}
    ids = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "image_start_token_id": VISION_START,
        "image_end_token_id": VISION_END,
        "video_start_token_id": VISION_START,
        "video_end_token_id": VISION_END,
    }
    processor_class = "Glm4vProcessor"
    image_processor = "Glm4vImageProcessor"
    video_processor = "Glm4vVideoProcessor"
    # The stock forward counts images and videos of a batch by one placeholder.
    prompts = {
        **IMAGE_PROMPTS,
        "one_video": (ONE_VIDEO,),
        "several_videos": (TWO_VIDEOS,),
        "ragged_videos": VIDEOS,
    }
    faults = {
        f"beams-{title}": Fault("expected a non-empty list of Tensors", RuntimeError)
        for title in ("one_video", "several_videos", "ragged_videos")
    }

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        return visual._replace(ids=[IMAGE if token == VIDEO else token for token in visual.ids])

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        if "video_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = 2 * inputs["mm_token_type_ids"]
        return inputs

    @override
    def video_text(self, processor: Any) -> str:
        return "<|begin_of_video|><|video|><|end_of_video|>"
