"""Narrow models with the heads of a 7B, and prompts for them.

Counts do not depend on widths: the models have 2 decoder layers, heads of 8 and random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from hf_token_compress.config import Modality
from hf_token_compress.models.vila import VilaConfig, VilaForConditionalGeneration

Tokens = Literal[500, 1500, 6000]
TOKENS: tuple[Tokens, ...] = (500, 1500, 6000)
"""Visual tokens of a prompt, about."""

_WORD, _IMAGE, _VIDEO, _START, _END, _TURN_END, _PADDING = 5, 10, 11, 12, 13, 14, 15
_QUESTION = 40
_HEAD = 8


@dataclass(frozen=True)
class Subject:
    """A model, and one image or video for each prompt.

    Attributes:
        model: In evaluation mode, in bfloat16.
        placeholders: Ids of the image or video in a prompt.
        pixels: Makes the processor's output for that many samples, besides ids and mask.
    """

    model: Any
    placeholders: list[int]
    pixels: Callable[[int], dict[str, Tensor]]

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Prompts whose questions have different lengths, padded on the left."""
        prompts = [
            [_WORD] * 10 + self.placeholders + [_WORD] * (_QUESTION - 3 * number) + [_TURN_END]
            for number in range(batch)
        ]
        longest = max(map(len, prompts))
        padded = [[_PADDING] * (longest - len(prompt)) + prompt for prompt in prompts]
        ids = torch.tensor(padded)
        return {
            "input_ids": ids,
            "attention_mask": (ids != _PADDING).long(),
            **self._token_types(ids),
            **self.pixels(batch),
        }

    def _token_types(self, ids: Tensor) -> dict[str, Tensor]:
        if not self.model.config.model_type.startswith("qwen"):
            return {}
        return {"mm_token_type_ids": (ids == _IMAGE).long() + 2 * (ids == _VIDEO).long()}


def make_subject(family: str, modality: Modality, tokens: Tokens) -> Subject:
    """A model of the family, and images or videos of about so many visual tokens."""
    return _MAKERS[family](modality, tokens)


def _text(heads: int, key_heads: int, **options: Any) -> dict[str, Any]:
    return {
        "vocab_size": 64,
        "hidden_size": heads * _HEAD,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": _HEAD,
        "max_position_embeddings": 32768,
        "pad_token_id": _PADDING,
        "eos_token_id": _TURN_END,
        "bos_token_id": None,
        **options,
    }


def _siglip(side: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 2,
        "vision_use_head": False,
    }


def _finished(model: Any) -> Any:
    model.generation_config.pad_token_id = _PADDING
    return model.to(torch.bfloat16).eval()


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()


def _qwen(family: str, modality: Modality, tokens: Tokens) -> Subject:
    heads, key_heads = {"qwen2_vl": (28, 4), "qwen3_vl": (32, 8)}[family]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    vision = {"depth": 2, "num_heads": 2, "patch_size": 2, "temporal_patch_size": 2}
    width = heads * _HEAD
    if family == "qwen2_vl":
        vision.update(embed_dim=32, hidden_size=width, mlp_ratio=1)
    else:
        vision.update(hidden_size=32, intermediate_size=32, out_hidden_size=width)
        vision.update(deepstack_visual_indexes=[0], num_position_embeddings=64)
    from transformers import Qwen2VLConfig, Qwen3VLConfig

    config = (Qwen2VLConfig if family == "qwen2_vl" else Qwen3VLConfig)(
        text_config=_text(heads, key_heads, rope_parameters=rope),
        vision_config=vision,
        image_token_id=_IMAGE,
        video_token_id=_VIDEO,
        vision_start_token_id=_START,
        vision_end_token_id=_END,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = _finished(AutoModelForImageTextToText.from_config(config))
    rows, columns = {500: (20, 25), 1500: (30, 50), 6000: (60, 100)}[tokens]
    frames = 1
    if modality == "video":
        frames, rows, columns = tokens // 250, 10, 25
    placeholder = _IMAGE if modality == "image" else _VIDEO
    frame = [_START, *[placeholder] * (rows * columns), _END]
    if family == "qwen2_vl":
        ids = [_START, *[placeholder] * (frames * rows * columns), _END]
    else:
        # Text stands between the frames.
        ids = [*frame, _WORD] * frames
    names = {
        "image": ("pixel_values", "image_grid_thw"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    }[modality]

    def pixels(batch: int) -> dict[str, Tensor]:
        grid = torch.tensor([[frames, 2 * rows, 2 * columns]] * batch)
        patches = _random(batch * 4 * frames * rows * columns, 3 * 2 * 2 * 2)
        return dict(zip(names, (patches, grid), strict=True))

    return Subject(model, ids, pixels)


def _llava_onevision(modality: Modality, tokens: Tokens) -> Subject:
    # An image of one tile: the whole image, and the tile with a newline after each row.
    tile = {500: 15, 1500: 27, 6000: 54}[tokens] if modality == "image" else 15
    side = 2 * tile
    from transformers import LlavaOnevisionConfig

    config = LlavaOnevisionConfig(
        text_config=_text(28, 4, model_type="qwen2"),
        vision_config=_siglip(side),
        image_token_id=_IMAGE,
        video_token_id=_VIDEO,
        image_grid_pinpoints=[[side, side]],
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = _finished(AutoModelForImageTextToText.from_config(config))
    if modality == "image":

        def pixels(batch: int) -> dict[str, Tensor]:
            sizes = torch.tensor([[side, side]] * batch)
            images = _random(batch, 2, 3, side, side)
            return {"pixel_values": images, "image_sizes": sizes}

        return Subject(model, [_IMAGE] * (2 * tile * tile + tile), pixels)
    frames = tokens // 64  # each pooled to 8 x 8
    return Subject(
        model,
        [_VIDEO] * (64 * frames + 1),
        lambda batch: {"pixel_values_videos": _random(batch, frames, 3, side, side)},
    )


def _vila(modality: Modality, tokens: Tokens) -> Subject:
    # 2 x 2 patches become one visual token.
    rows = {500: 22, 1500: 39, 6000: 77}[tokens] if modality == "image" else 22
    side = 2 * 2 * rows
    config = VilaConfig(
        text_config=_text(32, 32, model_type="llama"),
        vision_config=_siglip(side),
        image_token_index=_IMAGE,
        video_token_index=_VIDEO,
    )
    torch.manual_seed(0)
    model = _finished(VilaForConditionalGeneration(config))
    if modality == "image":
        return Subject(
            model,
            [_IMAGE] * rows**2,
            lambda batch: {"pixel_values": _random(batch, 3, side, side)},
        )
    frames = tokens // 484
    return Subject(
        model,
        [*[_VIDEO] * rows**2, _WORD] * frames,  # a line break after each frame
        lambda batch: {"pixel_values_videos": _random(batch, frames, 3, side, side)},
    )


_MAKERS: dict[str, Callable[[Modality, Tokens], Subject]] = {
    "qwen2_vl": lambda modality, tokens: _qwen("qwen2_vl", modality, tokens),
    "llava_onevision": _llava_onevision,
    "vila": _vila,
    "qwen3_vl": lambda modality, tokens: _qwen("qwen3_vl", modality, tokens),
}

FAMILIES = tuple(_MAKERS)
"""Qwen3-VL's layer 0 is scored by the probe, those of the others by the fast path."""
