"""Random tiny VideoLLaMA 3 models: some tokens of a video are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, PROMPTS, TEXT_CONFIG, VIDEO, Fault, TinyFamily, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

WORDS = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO}
PATCH = 4
# It counts tokens that were left out, too.
NO_BEAMS = Fault("expected a non-empty list of Tensors", since="5.24.0")
NO_CHUNKS = Fault("does not match the shape of the indexed", IndexError, since="5.23.0")
VIDEO_PROMPTS = ("one_video", "several_videos", "image_and_video", "ragged_videos")


class Family(TinyFamily):
    architecture = "VideoLlama3"
    prompts = PROMPTS
    faults = {
        **{f"beams-{title}": NO_BEAMS for title in VIDEO_PROMPTS},
        **{f"chunked-{title}": NO_CHUNKS for title in VIDEO_PROMPTS},
    }

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": PATCH,
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        if len(size) == 2:
            pixels = torch.randn(size[0] * size[1], 3 * PATCH * PATCH, generator=generator)
            return Visual("image", [IMAGE] * (size[0] * size[1]), pixels, (1, *size))
        frames, rows, columns = size
        pixels = torch.randn(4 * frames * rows * columns, 3 * PATCH * PATCH, generator=generator)
        # The first row of every frame but the first is left out.
        ids = [VIDEO] * (frames * rows * columns - (frames - 1) * columns)
        return Visual("video", ids, pixels, (frames, 2 * rows, 2 * columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual for own in visuals for visual in own if visual.kind == kind]
            if found:
                merge = 1 if kind == "image" else 2
                inputs[pixel_name] = torch.cat([visual.pixels for visual in found])
                inputs[f"{kind}_grid_thw"] = torch.tensor([visual.size for visual in found])
                inputs[f"{kind}_merge_sizes"] = torch.tensor([merge] * len(found))
            if found and kind == "video":
                inputs["video_compression_mask"] = torch.cat([_kept(own) for own in found])
        return inputs

    @override
    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_model

    @override
    def processor(self) -> Any:
        area = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
        images = transformers.VideoLlama3ImageProcessor(size=area, patch_size=PATCH)
        area = {"shortest_edge": 8 * 16 * 16, "longest_edge": 8 * 32 * 32}
        videos = transformers.VideoLlama3VideoProcessor(
            size=area, patch_size=PATCH, use_token_compression=False
        )
        return transformers.VideoLlama3Processor(images, word_tokenizer(WORDS), videos)

    @override
    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)


def _kept(visual: Visual) -> Tensor:
    """Bool [tokens] of a video, False on those that are left out."""
    frames, rows, columns = visual.size
    kept = torch.ones(frames, rows // 2, columns // 2, dtype=torch.bool)
    kept[1:, 0] = False
    return kept.flatten()
