"""The testbed's processor: SmolLM2's tokenizer, and pictures of one tile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.video_processing_llava_onevision import (
    LlavaOnevisionVideoProcessor,
)
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

TILE = 224
"""Pixels a side of a picture."""

PATCHES = 16
"""Patches a side of a picture."""

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
OPENING, CLOSING = "<|im_start|>user\n", "\n"
"""What the chat template puts before and after the visual tokens of a question."""

BEFORE_ANSWER = " "
"""What an answer begins with, so that its tokens are those that words have within a sentence."""

_CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>
{% elif part['type'] == 'video' %}<video>
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def build_processor(gguf: Path) -> LlavaOnevisionProcessor:
    """The processor of the testbed.

    Args:
        gguf: The language model's file, which holds its tokenizer.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN, VIDEO_TOKEN]})
    tokenizer.padding_side = "left"
    pictures: dict[str, Any] = {
        "size": {"height": TILE, "width": TILE},
        "image_mean": IMAGENET_DEFAULT_MEAN,
        "image_std": IMAGENET_DEFAULT_STD,
    }
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(
            image_grid_pinpoints=[[TILE, TILE]], **pictures
        ),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**pictures),
        num_image_tokens=PATCHES**2 + 1,  # with the class token, which the model leaves out
        vision_feature_select_strategy="default",
        chat_template=_CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
    )
