"""Model families: what each calls its parts, and where its visual tokens lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .family import EncodedVisuals, ModelFamily
    from .registry import register_family, supported_families

_HOMES = {
    ".family": ("EncodedVisuals", "ModelFamily"),
    ".registry": ("register_family", "supported_families"),
}

__all__ = ["EncodedVisuals", "ModelFamily", "register_family", "supported_families"]

# Transformers imports configurations of this package while it is being imported itself.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
