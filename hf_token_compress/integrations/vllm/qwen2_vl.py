"""Qwen2-VL, images and videos."""

from __future__ import annotations

# An untested version of vLLM is refused before anything of it is imported.
from . import tested as tested

# isort: split

from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .info import CompressingInfo
from .model import CompressedGridModel
from .processor import CompressingProcessor


class CompressedQwen2VLInfo(CompressingInfo, Qwen2VLProcessingInfo):
    """What vLLM asks about it."""

    has_grid_positions = True


class CompressedQwen2VLProcessor(CompressingProcessor, Qwen2VLMultiModalProcessor):
    """Its processor."""


@MULTIMODAL_REGISTRY.register_processor(
    CompressedQwen2VLProcessor, info=CompressedQwen2VLInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class CompressedQwen2VLForConditionalGeneration(
    CompressedGridModel, Qwen2VLForConditionalGeneration
):
    """The stock model, with fewer visual tokens."""
