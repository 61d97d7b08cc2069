"""A small multimodal LLM of pretrained parts, to judge scorers, mappers and relevance rules on.

Language model and vision tower come from packages that carry them; the trained projector and the
LoRA adapter of the language model are stored here (lab/testbed/README.md).
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
        **model_options: As for `assemble`, for instance `token_compression=…` or `dtype=…`
            (bfloat16 by default).

    Returns:
        (`LlavaOnevisionForConditionalGeneration` in evaluation mode, its processor).

    Raises:
        ImportError: A package that carries a part, or that reads it, is not installed.
    """
    return assemble(_WEIGHTS / "adapter", _WEIGHTS / "projector.safetensors", **model_options)
