"""VILA1.5: configuration, model and processor as Transformers classes, and its family.

Importing `hf_token_compress` registers them with the Auto classes of Transformers. These then load
the published checkpoints (`llm/`, `vision_tower/` and `mm_projector/` under a root config of model
type `llava_llama`) as well as this library's one-folder format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .configuration import VilaConfig
    from .modeling import VilaForConditionalGeneration, VilaModel
    from .processing import VilaProcessor

_HOMES = {
    ".configuration": ("VilaConfig",),
    ".modeling": ("VilaForConditionalGeneration", "VilaModel"),
    ".processing": ("VilaProcessor",),
}

__all__ = ["VilaConfig", "VilaForConditionalGeneration", "VilaModel", "VilaProcessor"]

# Transformers imports the configuration with its own: this must not import the model.
_get_name, __dir__ = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    from .registration import register_models

    if name in __all__:
        register_models()
    return _get_name(name)
