"""Tokenizer and processor of the tiny Qwen2-VL: stock classes with their own vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from hf_token_compress.data.scenes import COLOURS, LETTERS, load_drawings
from hf_token_compress.data.scenes.clip import CLIP_TEMPLATES
from hf_token_compress.data.scenes.questions import RELATIONS, TEMPLATES
from hf_token_compress.data.scenes.scene import MAX_SIDE

PATCH_SIZE = 12
MERGE_SIZE = 2
MIN_VISUAL_TOKENS = 64
MAX_VISUAL_TOKENS = 256

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or part['type'] == 'image_url' -%}
{{- 'IMAGE' -}}
{%- elif part['type'] == 'video' -%}
{{- 'VIDEO' -}}
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


def chat_template(image: str, video: str) -> str:
    """Chat template with these texts, quoted for Jinja, in place of images and videos."""
    return _CHAT_TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def cell_words() -> dict[str, list[str]]:
    """Words for everything that a cell can show, by attribute.

    `row 1` … `column 8` are single tokens, so that the row and column of a cell are words too.
    """
    numbers = range(1, MAX_SIDE + 1)
    return {
        "name": load_drawings().names,
        "colour": list(COLOURS),
        "letter": list(LETTERS),
        "row": [f"row {n}" for n in numbers],
        "column": [f"column {n}" for n in numbers],
    }


def sentence_words() -> list[str]:
    """The other words of questions, answers and the chat format."""
    words = {"user", "assistant", "system", "yes", "no", "a", "an"}
    words.update(words_of([*RELATIONS, *(text for texts in TEMPLATES.values() for text in texts)]))
    return sorted(words)


def clip_words() -> list[str]:
    """Words of the questions about clips."""
    return words_of(text for texts in CLIP_TEMPLATES.values() for text in texts)


def words_of(sentences: Iterable[str]) -> list[str]:
    """The distinct words of sentences or templates, sorted, without fields in braces."""
    words = set()
    for sentence in sentences:
        for word in sentence.replace("?", "").replace(".", "").replace(",", "").split():
            if "{" not in word:
                words.add(word)
    return sorted(words)


def build_tokenizer(more_words: Sequence[str] = ()) -> Qwen2Tokenizer:
    """Build a byte-level BPE in which every word is one token, with and without a leading space.

    All 256 bytes are in the alphabet, so any text can be encoded and decoded.

    Args:
        more_words: Further words to make single tokens.
    """
    cells = cell_words()
    positions = cells.pop("row") + cells.pop("column")
    words = [word for attribute in cells.values() for word in attribute] + sentence_words()
    words += more_words
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator([*words, *(f" {word}" for word in words)], trainer)
    tokenizer = Qwen2Tokenizer(
        vocab=trained.get_vocab(),
        merges=_merges(trained),
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=32768,
        extra_special_tokens=list(SPECIAL_TOKENS),
    )
    tokenizer.add_tokens(
        [AddedToken(word, single_word=True, normalized=False) for word in positions]
    )
    tokenizer.add_tokens([AddedToken(f" {word}", normalized=False) for word in positions])
    return tokenizer


def _merges(trained: Tokenizer) -> Any:
    """Merges of a trained tokenizer, as pairs."""
    merges = json.loads(trained.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges]


def build_processor(more_words: Sequence[str] = ()) -> Qwen2VLProcessor:
    """Build the processor: images of 64 to 256 visual tokens with 24 pixels per side.

    Args:
        more_words: As for `build_tokenizer`.
    """
    side = PATCH_SIZE * MERGE_SIZE
    size = {
        "shortest_edge": MIN_VISUAL_TOKENS * side * side,
        "longest_edge": MAX_VISUAL_TOKENS * side * side,
    }
    patches = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": 2}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=size, **patches),
        tokenizer=build_tokenizer(more_words),
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=True, **patches),
        chat_template=chat_template(
            image="<|vision_start|><|image_pad|><|vision_end|>",
            video="<|vision_start|><|video_pad|><|vision_end|>",
        ),
    )
