"""A testbed of really pretrained parts: SmolLM2-135M behind a ViT-S/14, as a LLaVA-OneVision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the trained projector and adapter."""


def load_testbed(**model_options: Any) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the trained testbed and its processor; nothing is downloaded.

    Args:
        **model_options: Passed to `from_pretrained`, for instance `token_compression=…` or
            `dtype=…` (bfloat16 by default).

    Returns:
        (model in evaluation mode, processor).

    Raises:
        ImportError: A package that carries a part is not installed.
    """
    from .assembly import assemble

    return assemble(WEIGHTS / "adapter", WEIGHTS / "projector.safetensors", **model_options)
