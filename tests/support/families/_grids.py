"""Families whose processor counts patches: rows and columns of an image count visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import transformers
from tiny_models import (
    HIDDEN,
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

ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.2,
}
IDS: dict[str, int] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
TIMESTAMP = 7


class Grids(TinyFamily):
    """Packed patches and their grids, multimodal rotary positions.

    Attributes:
        patch_values: Values of one patch.
        temporal_patch: Frames of one patch.
        text_options, vision_options: What its configurations have besides `TEXT_CONFIG`, `ROPE`
            and `VISION`.
        ids: The special tokens that its configuration names.
        temporal_patch: Frames of one patch.
        words: Ids of the special tokens of the processor: image, video, vision start, vision end.
        processor_class, image_processor, video_processor: Their names in Transformers.
    """

    prompts = PROMPTS
    patch_values = 3 * 2 * 4 * 4
    temporal_patch: ClassVar[int] = 2
    text_options: ClassVar[Mapping[str, Any]] = {}
    vision_options: ClassVar[Mapping[str, Any]] = {}
    ids: ClassVar[Mapping[str, int]] = IDS
    temporal_patch: ClassVar[int] = 2
    words: ClassVar[dict[str, int]] = {
        "<|image_pad|>": IMAGE,
        "<|video_pad|>": VIDEO,
        "<|vision_start|>": VISION_START,
        "<|vision_end|>": VISION_END,
    }
    processor_class: ClassVar[str] = "Qwen2VLProcessor"
    image_processor: ClassVar[str] = "Qwen2VLImageProcessor"
    video_processor: ClassVar[str] = "Qwen2VLVideoProcessor"

    @override
    def config(self, **text_options: Any) -> Any:
        text = {**TEXT_CONFIG, "rope_parameters": ROPE, **self.text_options, **text_options}
        return self.config_class(
            text_config=text,
            vision_config={**VISION, "out_hidden_size": HIDDEN, **self.vision_options},
            **self.ids,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        frames, rows, columns = (1, *size) if len(size) == 2 else size
        pixels = torch.randn(4 * frames * rows * columns, self.patch_values, generator=generator)
        placeholder = IMAGE if len(size) == 2 else VIDEO
        ids = [VISION_START, *[placeholder] * (frames * rows * columns), VISION_END]
        return Visual("image" if len(size) == 2 else "video", ids, pixels, (frames, rows, columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual for own in visuals for visual in own if visual.kind == kind]
            if found:
                inputs[pixel_name] = torch.cat([visual.pixels for visual in found])
                sizes = torch.tensor([visual.size for visual in found])
                inputs[f"{kind}_grid_thw"] = sizes * torch.tensor([1, 2, 2])
        return inputs

    @override
    def position_ids(self, model: Any, inputs: Any) -> Tensor:
        """Text order, then time, height and width: [4, B, S]."""
        mask = inputs["attention_mask"]
        visual, _ = model.base_model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            attention_mask=mask,
        )
        text = (mask.cumsum(-1) - 1).clamp(min=0)
        return torch.cat([text[None], visual], dim=0)

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.visual

    @override
    def processor(self) -> Any:
        image, video, start, end = list(self.words)[:4]
        tokenizer = word_tokenizer(
            self.words,
            image_token=image,
            video_token=video,
            vision_start_token=start,
            vision_end_token=end,
        )
        sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": self.temporal_patch}
        area = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        images = getattr(transformers, self.image_processor)(**sizes, size=area)
        area = {"shortest_edge": 2 * 16 * 16, "longest_edge": 8 * 64 * 64}
        videos = getattr(transformers, self.video_processor)(
            **sizes, size=area, do_sample_frames=False
        )
        return getattr(transformers, self.processor_class)(images, tokenizer, videos)

    @override
    def image_text(self, processor: Any) -> str:
        image, _, start, end = list(self.words)[:4]
        return f"{start}{image}{end}"

    @override
    def video_text(self, processor: Any) -> str:
        _, video, start, end = list(self.words)[:4]
        return f"{start}{video}{end}"


class Frames(Grids):
    """Text stands between the frames of a video."""

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        frames, rows, columns = visual.size
        frame = [VISION_START, *visual.ids[1:][: rows * columns], VISION_END]
        return visual._replace(ids=[*frame, TIMESTAMP] * frames)


class InTextOrder(Grids):
    """Visual tokens have positions in text order."""

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        del inputs["mm_token_type_ids"]
        return inputs

    @override
    def position_ids(self, model: Any, inputs: Any) -> Tensor:
        return TinyFamily.position_ids(self, model, inputs)
