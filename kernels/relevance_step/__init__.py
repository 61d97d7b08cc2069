"""One layer of relevance propagation: fold attention times its gradient into relevance."""

from .torch_reference import relevance_step

__all__ = ["relevance_step"]
