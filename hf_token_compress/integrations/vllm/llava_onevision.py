"""LLaVA-OneVision, images and videos. As in vLLM, each of several images is cut into tiles, too."""

from __future__ import annotations

# An untested version of vLLM is refused before anything of it is imported.
from . import tested as tested

# isort: split

import re
from collections.abc import Mapping
from typing import Any

from typing_extensions import override
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from ...models.family import Size
from ...prompt import Modality
from .info import CompressingInfo
from .model import CompressedModel
from .processor import CompressingProcessor


class CompressedLlavaOnevisionInfo(CompressingInfo, LlavaOnevisionProcessingInfo):
    """What vLLM asks about it."""

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Tokens of the largest image and video, uncompressed, as a request may ask for them."""
        return {
            "image": self.get_max_image_tokens(),
            "video": self.get_max_video_tokens(seq_len, mm_counts),
        }


class CompressedLlavaOnevisionProcessor(CompressingProcessor, LlavaOnevisionMultiModalProcessor):
    """Its processor."""

    @override
    def sizes(self, modality: Modality, processed: Mapping[str, Any]) -> list[Size]:
        if modality == "video":
            return [(len(frames),) for frames in processed["pixel_values_videos"]]
        return super().sizes(modality, processed)


@MULTIMODAL_REGISTRY.register_processor(
    CompressedLlavaOnevisionProcessor,
    info=CompressedLlavaOnevisionInfo,
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class CompressedLlavaOnevisionForConditionalGeneration(
    CompressedModel, LlavaOnevisionForConditionalGeneration
):
    """The stock model, with fewer visual tokens."""

    # Transformers 5 saves the vision tower under names that vLLM 0.32 does not know.
    hf_to_vllm_mapper = LlavaOnevisionForConditionalGeneration.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_regex={
            re.compile(r"^(model\.)?vision_tower\.(?!vision_model\.)"): "vision_tower.vision_model."
        }
    )
