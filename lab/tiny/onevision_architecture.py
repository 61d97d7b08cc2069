"""Configuration, processor and initial weights of the tiny LLaVA-OneVision.

Its language model starts from that of the trained tiny Qwen2-VL: both have the same layers, and the
three position axes of Qwen2-VL are equal on text.
"""

from __future__ import annotations

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

from hf_token_compress.data.scenes.clip import CLIP_TEMPLATES
from hf_token_compress.tiny import load_tiny

from .architecture import (
    WORD_STD,
    StockModel,
    greedy_generation,
    token_id,
)
from .processor import build_tokenizer, chat_template, words_of
from .transplant import (
    see_coarsely,
    take_language_model,
    text_settings,
)

TILE = 192
"""Side of a tile in pixels: four cells."""

PATCH_SIZE = 24
"""Side of a patch in pixels: half a cell. A patch is one visual token."""

PATCHES = TILE // PATCH_SIZE
"""Visual tokens per side of a tile."""

POOLED = PATCHES // 2
"""Visual tokens per side of a video frame: one per cell."""

RESOLUTIONS = [[rows * TILE, columns * TILE] for rows in (1, 2) for columns in (1, 2)]
IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
OPENING, CLOSING = "<|im_start|>user\n", "\n"
"""Text that the chat template puts before and after the visual tokens."""


def build_processor() -> LlavaOnevisionProcessor:
    """Build the processor: tiles of 192 pixels, at most two by two, and videos of any length."""
    tokenizer = build_tokenizer(
        words_of(text for texts in CLIP_TEMPLATES.values() for text in texts)
    )
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
    """Configuration with about four million parameters.

    Args:
        tokenizer: Tokenizer of the model.
        text: Configuration of the language model.
    """
    return LlavaOnevisionConfig(
        text_config=text,
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
    """The untrained model, float32, on the CPU."""
    source, source_processor = load_tiny("qwen2-vl")
    text = {**text_settings(source, tokenizer), "model_type": "qwen2"}
    torch.manual_seed(seed)
    model: StockModel = LlavaOnevisionForConditionalGeneration(build_config(tokenizer, text))
    take_language_model(model, tokenizer, source, source_processor)
    model.model.image_newline.data.normal_(0.0, WORD_STD)
    see_coarsely(model.model.vision_tower.embeddings.patch_embedding.weight)
    model.generation_config = greedy_generation(tokenizer)
    return model
