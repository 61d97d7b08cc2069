"""Random tiny models of families that the library has no code for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tiny_models import (
    HIDDEN,
    IMAGE,
    ONE_IMAGE,
    ONE_VIDEO,
    RAGGED,
    TEXT_CONFIG,
    TEXT_ONLY,
    TWO_IMAGES,
    TWO_VIDEOS,
    VIDEO,
    VISION_END,
    VISION_START,
    TinyFamily,
    Visual,
)
from tiny_qwen2_vl import TinyQwen2VL
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Model,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vModel,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from typing_extensions import override

from hf_token_compress import ModelFamily

ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
PATCHES = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
SPECIAL_IDS: dict[str, Any] = {"image_token_id": IMAGE, "video_token_id": VIDEO}
SIDE, SQUARE = 32, 16
TIMESTAMP, ROW_BREAK = 7, 8


class GlmFamily(ModelFamily):
    """GLM-4V: frames of a video have the id of images."""

    @override
    def placeholders(self, config: Any, inputs: Mapping[str, Any], modality: Any) -> Tensor:
        mask: Tensor = inputs["mm_token_type_ids"] == {"image": 1, "video": 2}[modality]
        return mask


class TinyQwen25VL(TinyQwen2VL):
    model_class = Qwen2_5_VLForConditionalGeneration
    base_class = Qwen2_5_VLModel

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return Qwen2_5_VLConfig(
            text_config={**TEXT_CONFIG, "rope_parameters": ROPE, **text_options},
            vision_config={
                **PATCHES,
                "depth": 2,
                "hidden_size": 32,
                "out_hidden_size": HIDDEN,
                "intermediate_size": 48,
                "num_heads": 2,
                "window_size": 16,
                "fullatt_block_indexes": [1],
                "initializer_range": 0.2,
            },
            **SPECIAL_IDS,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )


class _Frames(TinyQwen2VL):
    """Text stands between the frames of a video."""

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        frames, rows, columns = visual.size
        frame = [VISION_START, *visual.ids[1:][: rows * columns], VISION_END]
        return visual._replace(ids=[*frame, TIMESTAMP] * frames)


class TinyQwen3VL(_Frames):
    """Two of its layers add features of the vision tower's layers to their outputs."""

    model_class = Qwen3VLForConditionalGeneration
    base_class = Qwen3VLModel

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return Qwen3VLConfig(
            text_config={**TEXT_CONFIG, "head_dim": 8, "rope_parameters": ROPE, **text_options},
            vision_config={
                **PATCHES,
                "depth": 2,
                "hidden_size": 32,
                "out_hidden_size": HIDDEN,
                "intermediate_size": 48,
                "num_heads": 2,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
                "initializer_range": 0.2,
            },
            **SPECIAL_IDS,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )


class TinyGlm4v(_Frames):
    """Writes videos with the placeholder of images; only the token types tell them apart."""

    model_class = Glm4vForConditionalGeneration
    base_class = Glm4vModel
    prompts = {  # noqa: RUF012 - declared as in the base class
        "one_image": (ONE_IMAGE,),
        "ragged": RAGGED,
        "videos": (ONE_VIDEO, TEXT_ONLY, TWO_VIDEOS),
    }

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return Glm4vConfig(
            text_config={**TEXT_CONFIG, "rope_parameters": ROPE, **text_options},
            vision_config={
                **PATCHES,
                "depth": 2,
                "hidden_size": 32,
                "out_hidden_size": HIDDEN,
                "intermediate_size": 48,
                "num_heads": 2,
                "image_size": 32,
                "initializer_range": 0.2,
            },
            **SPECIAL_IDS,
            image_start_token_id=VISION_START,
            image_end_token_id=VISION_END,
            video_start_token_id=VISION_START,
            video_end_token_id=VISION_END,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        return visual._replace(ids=[IMAGE if token == VIDEO else token for token in visual.ids])

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = super().visual_inputs(visuals, ids)
        if "video_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = 2 * inputs["mm_token_type_ids"]
        return inputs


class _Square(TinyFamily):
    """Every image has one size and 16 visual tokens; its numbers only vary its content."""

    prompts = {  # noqa: RUF012 - declared as in the base class
        "one_image": (ONE_IMAGE,),
        "several_images": (TWO_IMAGES,),
        "text_only": (TEXT_ONLY,),
        "ragged": RAGGED,
    }

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        pixels = torch.randn(3, SIDE, SIDE, generator=generator)
        return Visual("image", [IMAGE] * SQUARE, pixels, size)

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual.pixels for own in visuals for visual in own]
        return {"pixel_values": torch.stack(found)} if found else {}

    def position_ids(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Tokens counted without padding, as in the stock `generate`."""
        return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    def visual_tower(self, model: Any) -> Any:
        return model.model.vision_tower


class TinyLlava(_Square):
    model_class = LlavaForConditionalGeneration
    base_class = LlavaModel

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return LlavaConfig(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={**_siglip(8), "model_type": "siglip_vision_model"},
            image_token_id=IMAGE,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )


class TinyInternVL(_Square):
    """Takes the features of all images as one tensor."""

    model_class = InternVLForConditionalGeneration
    base_class = InternVLModel

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return InternVLConfig(
            text_config={**TEXT_CONFIG, "model_type": "qwen2", **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [SIDE, SIDE],
                "patch_size": [4, 4],
                "initializer_range": 0.2,
            },
            image_token_id=IMAGE,
            image_seq_length=SQUARE,
            tie_word_embeddings=False,
        )


class TinyMistral3(_Square):
    """Rows and columns of an image count its visual tokens; a text token ends every row."""

    model_class = Mistral3ForConditionalGeneration
    base_class = Mistral3Model

    def config(self, **text_options: Any) -> PreTrainedConfig:
        return Mistral3Config(
            text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8, **text_options},
            vision_config={
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "head_dim": 16,
                "image_size": 64,
                "patch_size": 4,
            },
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        rows, columns = size
        pixels = torch.randn(3, 8 * rows, 8 * columns, generator=generator)
        return Visual("image", [*[IMAGE] * columns, ROW_BREAK] * rows, pixels, size)

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual.pixels for own in visuals for visual in own]
        if not found:
            return {}
        sizes = torch.tensor([pixels.shape[1:] for pixels in found])
        height, width = sizes.amax(0).tolist()
        padded = [pad(own, (0, width - own.shape[2], 0, height - own.shape[1])) for own in found]
        return {"pixel_values": torch.stack(padded), "image_sizes": sizes}


class TinyGemma3(_Square):
    """Attends within an image in both directions."""

    model_class = Gemma3ForConditionalGeneration
    base_class = Gemma3Model

    def config(self, **text_options: Any) -> PreTrainedConfig:
        options = {"head_dim": 8, "sliding_window": 256, "layer_types": None}
        return Gemma3Config(
            text_config={**TEXT_CONFIG, **options, "query_pre_attn_scalar": 8, **text_options},
            vision_config=_siglip(4),
            image_token_index=IMAGE,
            boi_token_index=VISION_START,
            eoi_token_index=VISION_END,
            mm_tokens_per_image=SQUARE,
            initializer_range=0.2,
        )

    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        return visual._replace(ids=[VISION_START, *visual.ids, VISION_END])

    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        return {**super().visual_inputs(visuals, ids), "token_type_ids": (ids == IMAGE).long()}


def _siglip(patch: int) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": patch,
        "vision_use_head": False,
    }
