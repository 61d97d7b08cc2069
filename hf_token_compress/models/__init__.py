"""Model families and what puts compression on a loaded model."""

from .adapter import EncodedVisuals, FamilyAdapter
from .attach import compress, prepare_inputs, uncompress
from .registry import register_family, supported_families
from .state import CompressionReport, SampleReport, TokenCompression

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
