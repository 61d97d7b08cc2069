"""The engine: puts compression on a loaded model, and rewrites its inputs at every call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .attach import compress, prepare_inputs, uncompress
    from .report import CompressionReport, SampleReport
    from .state import TokenCompression

_HOMES = {
    "CompressionReport": ".report",
    "SampleReport": ".report",
    "TokenCompression": ".state",
    "compress": ".attach",
    "prepare_inputs": ".attach",
    "uncompress": ".attach",
}

__all__ = [
    "CompressionReport",
    "SampleReport",
    "TokenCompression",
    "compress",
    "prepare_inputs",
    "uncompress",
]

# `from_pretrained` is wrapped while Transformers is still being imported.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
