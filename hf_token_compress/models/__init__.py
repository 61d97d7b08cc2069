"""Model families and what puts compression on a loaded model."""

from .attach import compress, prepare_inputs, uncompress
from .registry import register_family, supported_families

__all__ = ["compress", "prepare_inputs", "register_family", "supported_families", "uncompress"]
