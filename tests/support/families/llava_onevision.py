"""Random tiny LLaVA-OneVision models: rows and columns of an image count its patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, PROMPTS, TEXT_CONFIG, VIDEO, TinyFamily, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

PATCH, TILE = 4, 16
RESOLUTIONS = [[TILE * rows, TILE * columns] for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2))]


class Family(TinyFamily):
    architecture = "LlavaOnevision"
    prompts = PROMPTS

    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": TILE,
                "patch_size": PATCH,
                "vision_use_head": False,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_grid_pinpoints=RESOLUTIONS,
            # Small enough that the largest images' tile grids are shrunk.
            vision_aspect_ratio="anyres_max_2",
            tie_word_embeddings=False,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        if len(size) == 3:
            frames = size[0]
            pixels = torch.randn(frames, 3, TILE, TILE, generator=generator)
            return Visual("video", [VIDEO] * (frames * 2 * 2 + 1), pixels, size)
        rows, columns = size
        height, width = PATCH * rows, PATCH * columns
        tiles = image_size_to_num_patches((height, width), RESOLUTIONS, TILE) if alone else 1
        pixels = torch.randn(tiles, 3, TILE, TILE, generator=generator)
        return Visual("image", [IMAGE] * _image_tokens(size, alone), pixels, (height, width))

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {}
        images = [[visual for visual in own if visual.kind == "image"] for own in visuals]
        if flat := [image for own in images for image in own]:
            most = max(len(image.pixels) for image in flat)
            inputs["pixel_values"] = torch.stack(
                [
                    torch.cat([image.pixels, torch.zeros(most - len(image.pixels), 3, TILE, TILE)])
                    for image in flat
                ]
            )
            inputs["image_sizes"] = torch.tensor([image.size for image in flat])
            inputs["batch_num_images"] = torch.tensor([len(own) for own in images if own])
        if videos := [visual for own in visuals for visual in own if visual.kind == "video"]:
            inputs["pixel_values_videos"] = torch.stack([video.pixels for video in videos])
        return inputs

    def processor(self) -> Any:
        size = {"height": TILE, "width": TILE}
        return transformers.LlavaOnevisionProcessor(
            transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=RESOLUTIONS),
            word_tokenizer({"<image>": IMAGE, "<video>": VIDEO}),
            transformers.LlavaOnevisionVideoProcessor(size=size, do_sample_frames=False),
            num_image_tokens=(TILE // PATCH) ** 2,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_2",
        )

    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)


def _image_tokens(size: tuple[int, ...], alone: bool) -> int:
    """Placeholders of the images that the prompts use, counted by hand.

    An image of 6 x 8 patches takes 2 x 2 tiles of 4 x 4 patches. The outer rows only show padding,
    and the remaining 6 x 8 patches are more than the 32 of two tiles times 1.1 squared, so they are
    shrunk to 4 x 6. An image of 4 x 4 patches is one tile.
    """
    if not alone:
        return 16 + 1
    rows, columns = {(6, 8): (4, 6), (4, 4): (4, 4)}[size]
    return 16 + rows * (columns + 1)
