"""Model families and what puts compression on a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

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


# Configurations under this package are imported while Transformers is still being imported.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
