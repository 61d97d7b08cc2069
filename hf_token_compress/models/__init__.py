"""Model families and what puts compression on a loaded model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import EncodedVisuals, FamilyAdapter
    from .attach import compress, prepare_inputs, uncompress
    from .registry import register_family, supported_families
    from .state import CompressionReport, SampleReport, TokenCompression

_HOMES = {
    "CompressionReport": ".state",
    "EncodedVisuals": ".adapter",
    "FamilyAdapter": ".adapter",
    "SampleReport": ".state",
    "TokenCompression": ".state",
    "compress": ".attach",
    "prepare_inputs": ".attach",
    "register_family": ".registry",
    "supported_families": ".registry",
    "uncompress": ".attach",
}

__all__ = [
    "CompressionReport",
    "EncodedVisuals",
    "FamilyAdapter",
    "SampleReport",
    "TokenCompression",
    "compress",
    "prepare_inputs",
    "register_family",
    "supported_families",
    "uncompress",
]


def __getattr__(name: str) -> Any:
    # Configurations under this package are imported while Transformers is still being imported.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
