"""A small multimodal LLM of really pretrained parts, to judge scorers, mappers and teachers on.

Language model and vision tower are taken from packages that carry them; what the library brings
along is what was trained: a projector and a LoRA adapter of the language model (docs/testbed.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lazy import lazy_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from .assembly import assemble

__all__ = ["assemble", "is_testbed", "load_testbed", "testbed_settings"]

_NAME = "testbed"
_WEIGHTS = Path(__file__).parent / "weights"

__getattr__, __dir__ = lazy_names(__name__, {"assemble": ".assembly"})


def is_testbed(model: str) -> bool:
    """Whether a model that a user names is the testbed; a folder of that name goes before."""
    return model == _NAME and not Path(model).exists()


def load_testbed(**model_options: Any) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the trained testbed and its processor; nothing is downloaded.

    Args:
        **model_options: As for `assemble`, for instance `token_compression=…` or `dtype=…`
            (bfloat16 by default).

    Returns:
        (`LlavaOnevisionForConditionalGeneration` in evaluation mode, its processor).

    Raises:
        FileNotFoundError: The trained weights are missing.
        ImportError: A package that carries a part, or that reads it, is not installed.
    """
    from .assembly import assemble

    _check_weights()
    return assemble(_WEIGHTS / "adapter", _WEIGHTS / "projector.safetensors", **model_options)


def testbed_settings() -> dict[str, Any]:
    """What a config.json of the testbed would say of its family and dtype, without loading it.

    Raises:
        FileNotFoundError: The trained weights are missing.
        ImportError: A package that carries a part, or that reads it, is not installed.
    """
    from .parts import check_parts

    _check_weights()
    check_parts()
    return {"model_type": "llava_onevision", "dtype": "bfloat16"}


def _check_weights() -> None:
    names = ("projector.safetensors", "adapter/adapter_config.json")
    if not all((_WEIGHTS / name).is_file() for name in names):
        raise FileNotFoundError(
            "The trained weights of the testbed are not in this installation of hf-token-compress: "
            "install a version that has them, or train them (docs/testbed.md)."
        )
