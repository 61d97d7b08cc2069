"""VILA1.5: configuration, model and processor as Transformers classes, and its adapter.

Importing `hf_token_compress` makes them known to the Auto classes of Transformers, which then load
the published checkpoints (`llm/`, `vision_tower/` and `mm_projector/` under a root config of model
type `llava_llama`) and this library's own one-folder format alike.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration import VilaConfig
    from .modeling import VilaForConditionalGeneration, VilaModel
    from .processing import VilaProcessor

_HOMES = {
    "VilaConfig": ".configuration",
    "VilaForConditionalGeneration": ".modeling",
    "VilaModel": ".modeling",
    "VilaProcessor": ".processing",
}

__all__ = ["VilaConfig", "VilaForConditionalGeneration", "VilaModel", "VilaProcessor"]


def __getattr__(name: str) -> Any:
    # The configuration alone is imported with Transformers' own: it must not bring in the model.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
