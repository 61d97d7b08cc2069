"""The testbed's processor: stock classes, SmolLM2's tokenizer, one tile per image."""

from __future__ import annotations

from typing import Literal

from transformers import LlavaOnevisionProcessor, PreTrainedTokenizerFast
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.video_processing_llava_onevision import (
    LlavaOnevisionVideoProcessor,
)

from .language_model import PLACEHOLDERS
from .vision_tower import IMAGE_SIZE, PATCHES

GRID_PINPOINTS = [[IMAGE_SIZE, IMAGE_SIZE]]
SELECT_STRATEGY: Literal["default"] = "default"
"""Drops the tower's class token."""

OPENING, CLOSING = "<|im_start|>user\n", "\n"
"""Text that the chat template puts before and after the visual tokens."""

BEFORE_ANSWER = " "
"""Start of every answer, so that its tokens are those of words inside a sentence."""

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or part['type'] == 'image_url' -%}
{{- '<image>\\n' -}}
{%- elif part['type'] == 'video' -%}
{{- '<video>\\n' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionProcessor:
    """Build the processor around this tokenizer.

    An image of any size becomes one tile: 256 visual tokens for the whole image, 256 for the tile
    and 16 newlines. A video has 64 tokens per frame.
    """
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image, video = PLACEHOLDERS
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(
            size=size, image_grid_pinpoints=GRID_PINPOINTS, image_mean=_MEAN, image_std=_STD
        ),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size, image_mean=_MEAN, image_std=_STD),
        # The processor counts the class token too.
        num_image_tokens=PATCHES**2 + 1,
        vision_feature_select_strategy=SELECT_STRATEGY,
        chat_template=CHAT_TEMPLATE,
        image_token=image,
        video_token=video,
    )
