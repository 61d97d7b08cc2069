"""The engine: puts compression on a loaded model, and rewrites its inputs at every call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .attach import compress, prepare_inputs, uncompress
    from .report import CompressionReport, SampleReport
    from .totals import CompressionTotals

_HOMES = {
    ".attach": ("compress", "prepare_inputs", "uncompress"),
    ".report": ("CompressionReport", "SampleReport"),
    ".totals": ("CompressionTotals",),
}

__all__ = [
    "CompressionReport",
    "CompressionTotals",
    "SampleReport",
    "compress",
    "prepare_inputs",
    "uncompress",
]

# `from_pretrained` is wrapped while Transformers is still being imported.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
