"""Random tiny SmolVLM models."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from tiny_processors import word_tokenizer
from typing_extensions import override

from . import idefics3
from ._tiles import TOKENS


class Family(idefics3.Family):
    architecture = "SmolVLM"
    since = "5.24.0"

    @override
    def processor(self) -> Any:
        pytest.importorskip("num2words")
        return transformers.SmolVLMProcessor(
            transformers.SmolVLMImageProcessor(**idefics3.SIZES, do_image_splitting=False),
            word_tokenizer(idefics3.WORDS),
            transformers.SmolVLMVideoProcessor(**idefics3.SIZES, do_sample_frames=False),
            image_seq_len=TOKENS,
        )
