"""One layer of relevance propagation: fold attention times its gradient into relevance."""

from __future__ import annotations

from torch import Tensor

from ..backend import choose_backend
from ..inputs import check_contiguous, check_device, check_dtype, check_floating
from . import torch_reference
from .torch_reference import Reduction

__all__ = ["Reduction", "relevance_step"]


def relevance_step(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    *,
    query_positions: Tensor | None = None,
    key_mask: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = True,
    sliding_window: int | None = None,
    scaling: float | None = None,
    reduction: Reduction = "positive",
    normalize_rows: bool = False,
    residual: bool = True,
    lse: Tensor | None = None,
    chunk_size: int | None = None,
    backend: str | None = None,
) -> Tensor:
    ...

