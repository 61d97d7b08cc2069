"""Configuration, processor and first weights of the tiny LLaVA-OneVision.

Its language model starts from the trained tiny Qwen2-VL's: both have the same layers, and on text
the latter's three position axes are one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerBase,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.video_processing_llava_onevision import (
    LlavaOnevisionVideoProcessor,
)

from hf_token_compress.tiny import load_tiny
from hf_token_compress.training.tiny.architecture import (
    WORD_STD,
    StockModel,
    greedy_generation,
    token_id,
)
from hf_token_compress.training.tiny.processor import (
    build_tokenizer,
    chat_template,
    clip_words,
)
from hf_token_compress.training.tiny.transfer import take_language_model

TILE = 192
"""Pixels a side of a tile: four cells."""

PATCH_SIZE = 24
"""Pixels a side of a patch, which is one visual token: a quarter of a cell."""

PATCHES = TILE // PATCH_SIZE
"""Rows, and columns, of visual tokens of a tile."""

POOLED = PATCHES // 2
"""Rows, and columns, of visual tokens of a frame of a video: one token a cell."""

_WAVES = 6
RESOLUTIONS = [[rows * TILE, columns * TILE] for rows in (1, 2) for columns in (1, 2)]
IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
OPENING, CLOSING = "<|im_start|>user\n", "\n"
"""What the chat template puts before and after the visual tokens of a question."""


def build_processor() -> LlavaOnevisionProcessor:
    """The processor: tiles of 192 pixels, at most two by two of them, and videos of any length."""
    tokenizer = build_tokenizer(clip_words())
    size = {"height": TILE, "width": TILE}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(
            size=size, image_grid_pinpoints=RESOLUTIONS
        ),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=PATCHES**2,
        vision_feature_select_strategy="full",
        chat_template=chat_template(image=rf"{IMAGE_TOKEN}\n", video=rf"{VIDEO_TOKEN}\n"),
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
    )


def build_config(tokenizer: PreTrainedTokenizerBase, text: dict[str, Any]) -> LlavaOnevisionConfig:
    """Configuration of about four million parameters.

    Args:
        tokenizer: Tokenizer of the model.
        text: Sizes of the language model's layers.
    """
    return LlavaOnevisionConfig(
        text_config={
            **text,
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 576,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "image_size": TILE,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        tie_word_embeddings=True,
        image_token_index=token_id(tokenizer, IMAGE_TOKEN),
        video_token_index=token_id(tokenizer, VIDEO_TOKEN),
        image_grid_pinpoints=RESOLUTIONS,
    )


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> StockModel:
    """The model before its own training, float32, on the CPU."""
    loaded: Any = load_tiny("qwen2-vl")
    source, source_processor = loaded
    source_text = source.config.get_text_config()
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
    )
    torch.manual_seed(seed)
    model: StockModel = LlavaOnevisionForConditionalGeneration(
        build_config(tokenizer, {name: getattr(source_text, name) for name in names})
    )
    take_language_model(model, tokenizer, source, source_processor.tokenizer)
    with torch.no_grad():
        model.model.image_newline.normal_(0.0, WORD_STD)
    _see_coarsely(model.model.vision_tower.embeddings.patch_embedding.weight)
    model.generation_config = greedy_generation(tokenizer)
    return model


@torch.no_grad()
def _see_coarsely(kernel: torch.Tensor) -> None:
    """First patch embedding: random mixtures of smooth waves, each about as loud as the others.

    A kernel of independent pixels tells a drawing from the same one moved by two pixels; smooth
    ones do not, and the tower learns what is drawn many times faster.

    Args:
        kernel: (width, 3, patch, patch), overwritten.
    """
    width, channels, size, _ = kernel.shape
    frequency = torch.arange(_WAVES)
    pixel = torch.arange(size) + 0.5
    wave = torch.cos(math.pi / size * frequency[:, None] * pixel) * (2 / size) ** 0.5
    wave[0] /= 2**0.5  # orthonormal: rows of a cosine transform
    mixture = torch.randn(width, channels, _WAVES, _WAVES)
    # Fine waves are fainter in pictures, about as one over their frequency.
    mixture *= (1 + frequency[:, None] + frequency) / (size * (channels * _WAVES**2) ** 0.5)
    kernel.copy_(torch.einsum("ocuv,uh,vw->ochw", mixture, wave, wave))
