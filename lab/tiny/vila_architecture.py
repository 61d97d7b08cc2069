"""Configuration, processor and initial weights of the tiny VILA.

Its tower has an odd number of patches per side, as in the published VILA1.5, so the projector has
to pad. The language model starts from the trained tiny LLaVA-OneVision, which has seen clips, and
the tower from the trained tiny Qwen2-VL, whose patches have a similar size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hf_token_compress.models.vila import (
    VilaConfig,
    VilaForConditionalGeneration,
    VilaProcessor,
)
from hf_token_compress.tiny import load_tiny

from .architecture import StockModel, greedy_generation, token_id
from .processor import build_tokenizer, chat_template, clip_words
from .transplant import take_language_model, text_settings

PATCHES, PATCH_SIZE = 15, 13
"""Patches per side of an image, and pixels per side of a patch."""

IMAGE_SIZE = PATCHES * PATCH_SIZE
"""Side in pixels to which images are resized; scenes of 4 x 4 cells have 192."""

SIDE = (PATCHES + 1) // 2
"""Visual tokens per side of an image; the last ones are half padding."""

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
_POSITION_STRENGTH = 2.0
_OCTAVES = (-0.5, 3.0)

OPENING, CLOSING = "<|im_start|>user\n", "\n"
"""Text that the chat template puts before and after the visual tokens."""


def build_processor() -> VilaProcessor:
    """Build the processor: square images, and videos of up to 16 frames."""
    tokenizer = build_tokenizer(clip_words())
    return VilaProcessor(
        image_processor=SiglipImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            resample=Image.Resampling.BICUBIC,
            do_convert_rgb=True,
        ),
        tokenizer=tokenizer,
        image_seq_length=SIDE**2,
        num_video_frames=16,
        chat_template=chat_template(image=rf"{IMAGE_TOKEN}\n", video=VIDEO_TOKEN),
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
    )


def build_config(tokenizer: PreTrainedTokenizerBase, text: dict[str, Any]) -> VilaConfig:
    """Configuration with about three million parameters.

    Args:
        tokenizer: Tokenizer of the model.
        text: Configuration of the language model.
    """
    return VilaConfig(
        text_config=text,
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "hidden_act": "quick_gelu",
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        image_token_index=token_id(tokenizer, IMAGE_TOKEN),
        video_token_index=token_id(tokenizer, VIDEO_TOKEN),
        num_video_frames=16,
    )


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> StockModel:
    """The untrained model, float32, on the CPU."""
    source, source_processor = load_tiny("llava-onevision")
    # Queries, keys and values of the trained layers have biases.
    text = {**text_settings(source, tokenizer), "model_type": "llama", "attention_bias": True}
    torch.manual_seed(seed)
    model: StockModel = VilaForConditionalGeneration(build_config(tokenizer, text))
    take_language_model(model, tokenizer, source, source_processor)
    seeing: StockModel = load_tiny("qwen2-vl")[0]
    _take_tower(model.model.vision_tower, seeing.model.visual)
    _take_norm(model.model.multi_modal_projector.norm, seeing.model.visual.merger.ln_q)
    model.generation_config = greedy_generation(tokenizer)
    return model


@torch.no_grad()
def _take_tower(tower: Any, source: Any) -> None:
    """Copy a trained tower of the same size, except for its rotary positions.

    Args:
        tower: SigLIP tower, changed in place.
        source: Tower of the trained tiny Qwen2-VL.
    """
    # Qwen2-VL sees an image as two equal frames, normalises differently and has smaller patches.
    kernel = source.patch_embed.proj.weight.sum(2)
    enlarged = nn.functional.interpolate(kernel, size=(PATCH_SIZE, PATCH_SIZE), mode="bicubic")
    enlarged *= (kernel.shape[-1] / PATCH_SIZE) ** 2
    mean, std = (torch.tensor(x)[:, None, None] for x in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    patches = tower.embeddings.patch_embedding
    patches.weight.copy_(enlarged * 0.5 / std)
    patches.bias.copy_((enlarged * (0.5 - mean) / std).sum((1, 2, 3)))
    tower.embeddings.position_embedding.weight.copy_(_waves(patches.weight.shape[0]))
    for layer, trained in zip(tower.encoder.layers, source.blocks, strict=True):
        own = layer.self_attn
        for name in ("weight", "bias"):
            parts = getattr(trained.attn.qkv, name).chunk(3)
            for projection, part in zip((own.q_proj, own.k_proj, own.v_proj), parts, strict=True):
                getattr(projection, name).copy_(part)
        own.out_proj.load_state_dict(trained.attn.proj.state_dict())
        layer.mlp.load_state_dict(trained.mlp.state_dict())
        layer.layer_norm1.load_state_dict(trained.norm1.state_dict())
        layer.layer_norm2.load_state_dict(trained.norm2.state_dict())


@torch.no_grad()
def _take_norm(norm: Any, source: Any) -> None:
    """Copy the norm of one patch to the projector's norm of two by two patches."""
    norm.weight.copy_(source.weight.repeat(4))
    norm.bias.copy_(source.bias.repeat(4))


def _waves(width: int) -> torch.Tensor:
    """Initial position embeddings, float32 [patches, width], similar for neighbours."""
    octaves = torch.linspace(*_OCTAVES, width // 4)
    place = torch.arange(PATCHES) + 0.5
    angle = math.pi / PATCHES * place[:, None] * 2.0**octaves
    along = torch.cat([angle.sin(), angle.cos()], dim=1)  # [PATCHES, width / 2]
    shape = (PATCHES, PATCHES, width // 2)
    both = torch.cat([along[:, None].expand(shape), along.expand(shape)], dim=2)
    return _POSITION_STRENGTH * both.flatten(0, 1)
