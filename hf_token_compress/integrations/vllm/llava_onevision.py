"""LLaVA-OneVision, images and videos. As in vLLM, each of several images is cut into tiles, too."""

from __future__ import annotations

# An untested version of vLLM is refused before anything of it is imported.
from . import tested as tested

# isort: split

from collections.abc import Mapping
from typing import Any

from typing_extensions import override
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from ...models.family import Size
from ...prompt import Modality
from .model import CompressedModel
from .processor import CompressingProcessor


class CompressedLlavaOnevisionProcessor(CompressingProcessor, LlavaOnevisionMultiModalProcessor):
    """Its processor."""

    @override
    def sizes(self, modality: Modality, processed: Mapping[str, Any]) -> list[Size]:
        if modality == "video":
            return [(len(frames),) for frames in processed["pixel_values_videos"]]
        return super().sizes(modality, processed)


@MULTIMODAL_REGISTRY.register_processor(
    CompressedLlavaOnevisionProcessor,
    info=LlavaOnevisionProcessingInfo,
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class CompressedLlavaOnevisionForConditionalGeneration(
    CompressedModel, LlavaOnevisionForConditionalGeneration
):
    """The stock model, with fewer visual tokens."""
