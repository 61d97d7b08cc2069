"""Model families: what each calls its parts, and where its visual tokens lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .family import ModelFamily
    from .registry import register_family, supported_families
    from .visuals import EncodedVisuals

_HOMES = {
    ".family": ("ModelFamily",),
    ".registry": ("register_family", "supported_families"),
    ".visuals": ("EncodedVisuals",),
}

__all__ = ["EncodedVisuals", "ModelFamily", "register_family", "supported_families"]

# Transformers imports configurations of this package while it is being imported itself.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
