"""Qwen2.5-VL, images and videos."""

from __future__ import annotations

# An untested version of vLLM is refused before anything of it is imported.
from . import tested as tested

# isort: split

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .info import CompressingInfo
from .model import CompressedGridModel
from .processor import CompressingProcessor


class CompressedQwen25VLInfo(CompressingInfo, Qwen2_5_VLProcessingInfo):
    """What vLLM asks about it."""

    has_grid_positions = True


class CompressedQwen25VLProcessor(CompressingProcessor, Qwen2_5_VLMultiModalProcessor):
    """Its processor."""


@MULTIMODAL_REGISTRY.register_processor(
    CompressedQwen25VLProcessor,
    info=CompressedQwen25VLInfo,
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class CompressedQwen25VLForConditionalGeneration(
    CompressedGridModel, Qwen2_5_VLForConditionalGeneration
):
    """The stock model, with fewer visual tokens."""
