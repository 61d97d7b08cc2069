"""Random tiny Qwen2-VL models, and prompts for them made of text, images, videos and turn ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
)

TEXT_IDS = 80
IMAGE, VISION_START, VISION_END, TURN_END, PADDING, VIDEO = 90, 91, 92, 93, 94, 95
VOCABULARY = 100
PATCH_VALUES = 3 * 2 * 4 * 4
HIDDEN = 48

Segment: TypeAlias = int | tuple[int, ...] | Literal["end"]
"""A number of text tokens, an image (rows, columns), a video (frames, rows, columns), or the end
of a turn; rows and columns count visual tokens."""

Prompt: TypeAlias = Sequence[Segment]

ONE_IMAGE: Prompt = (4, (6, 8), 7, "end", 2)
TWO_IMAGES: Prompt = (3, (4, 6), 2, (6, 6), 5, "end", 2)
TWO_TURNS: Prompt = (3, (6, 6), 5, "end", 2, 4, "end", 3, (4, 4), 6, "end", 2)
TEXT_ONLY: Prompt = (9, "end", 2)
IMAGE_AND_VIDEO: Prompt = (2, (2, 4, 4), 3, (4, 4), 5, "end", 2)
RAGGED: tuple[Prompt, ...] = (ONE_IMAGE, TWO_TURNS, TEXT_ONLY, TWO_IMAGES)

PROMPTS: dict[str, tuple[Prompt, ...]] = {
    "one_image": (ONE_IMAGE,),
    "several_images": (TWO_IMAGES,),
    "several_turns": (TWO_TURNS,),
    "image_and_video": (IMAGE_AND_VIDEO,),
    "text_only": (TEXT_ONLY,),
    "ragged": RAGGED,
}


def tiny_config(attention: str = "sdpa", **text_options: Any) -> Qwen2VLConfig:
    """Configuration with three query heads to a key head and weights large enough to matter."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [1, 1, 2],
            "rope_theta": 10000.0,
        },
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": PADDING,
        "eos_token_id": TURN_END,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    config = Qwen2VLConfig(
        text_config={**text, **text_options},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": HIDDEN,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "mlp_ratio": 2,
            "initializer_range": 0.2,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    config._attn_implementation = attention
    return config


def tiny_model(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **text_options: Any,
) -> Qwen2VLForConditionalGeneration:
    """A random model in evaluation mode; the same arguments give the same weights."""
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(tiny_config(attention, **text_options))
    model.generation_config.pad_token_id = PADDING
    model.generation_config.eos_token_id = TURN_END
    model.generation_config.suppress_tokens = [IMAGE, VISION_START, VISION_END, PADDING, VIDEO]
    return model.to(dtype).eval()


def tiny_base_model(
    attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0
) -> Qwen2VLModel:
    """The same without a language model head."""
    torch.manual_seed(seed)
    return Qwen2VLModel(tiny_config(attention)).to(dtype).eval()


def make_inputs(
    prompts: Sequence[Prompt],
    *,
    padding_side: Literal["left", "right"] = "left",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What a processor would return for these prompts; a prompt's content depends on itself alone.

    Every prompt is drawn from its own generator, so that a prompt alone has the ids and pixels that
    it has in a batch.
    """
    rows: list[list[int]] = []
    pixels: dict[str, list[Tensor]] = {"image": [], "video": []}
    grids: dict[str, list[tuple[int, int, int]]] = {"image": [], "video": []}
    for prompt in prompts:
        generator = torch.Generator().manual_seed(seed + sum(map(ord, repr(prompt))))
        ids: list[int] = []
        for segment in prompt:
            if segment == "end":
                ids.append(TURN_END)
            elif isinstance(segment, int):
                ids += torch.randint(0, TEXT_IDS, (segment,), generator=generator).tolist()
            else:
                kind, token = ("image", IMAGE) if len(segment) == 2 else ("video", VIDEO)
                frames, height, width = (1, *segment) if kind == "image" else segment
                grids[kind].append((frames, 2 * height, 2 * width))
                patches = frames * 4 * height * width
                pixels[kind].append(torch.randn(patches, PATCH_VALUES, generator=generator))
                ids += [VISION_START, *[token] * (frames * height * width), VISION_END]
        rows.append(ids)
    longest = max(map(len, rows))

    def padded(row: list[int], fill: int) -> list[int]:
        padding = [fill] * (longest - len(row))
        return padding + row if padding_side == "left" else row + padding

    input_ids = torch.tensor([padded(row, PADDING) for row in rows])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.tensor([padded([1] * len(row), 0) for row in rows]),
        "mm_token_type_ids": (input_ids == IMAGE).long() + 2 * (input_ids == VIDEO).long(),
    }
    for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixels[kind]:
            inputs[pixel_name] = torch.cat(pixels[kind]).to(dtype)
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids[kind])
    return inputs
