"""Choose which implementation of a kernel runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

BACKENDS = ("triton", "torch")
VARIABLE = "HF_TOKEN_COMPRESS_KERNELS"

_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_HEAD_DIM = 256


def choose_backend(requested: str | None, *tensors: Tensor, torch_only: Sequence[str] = ()) -> str:
    """Choose the backend of a kernel: `"triton"` or `"torch"`.

    The argument decides, then the environment variable `HF_TOKEN_COMPRESS_KERNELS`, then the
    tensors: Triton on CUDA and ROCm, torch elsewhere. Torch also runs what Triton cannot: float64,
    heads beyond 256, calls that need a gradient, and all calls where Triton is not installed.

    Args:
        requested: `"triton"`, `"torch"` or None.
        tensors: Floating tensors of the call, on one device, head_dim last.
        torch_only: Arguments of the call that only the torch version takes.

    Raises:
        ValueError: The backend is unknown, or Triton is requested where it cannot run.
    """
    asked_by = "backend" if requested is not None else VARIABLE
    backend = requested if requested is not None else os.environ.get(VARIABLE) or None
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"{asked_by} must be one of {', '.join(BACKENDS)}, but is {backend!r}.")
    if backend == "torch":
        return backend
    if torch_only:
        reason: str | None = f"its kernel takes no {' and no '.join(torch_only)}"
    else:
        reason = _why_not_triton(*tensors)
    if reason is None:
        return "triton"
    if backend == "triton":
        raise ValueError(
            f"{asked_by} asks for Triton, but {reason}: use 'torch' or leave it unset."
        )
    return "torch"


def _why_not_triton(*tensors: Tensor) -> str | None:
    device = tensors[0].device
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"the tensors are on {device} and Triton runs on CUDA and ROCm"
    dtype = tensors[0].dtype
    if dtype not in _TRITON_DTYPES:
        return f"the tensors are {dtype} and the kernels take float32, bfloat16 and float16"
    head_dim = tensors[0].shape[-1]
    if head_dim > _MAX_HEAD_DIM:
        return f"head_dim is {head_dim} and the kernels take at most {_MAX_HEAD_DIM}"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "a tensor requires a gradient and the kernels have no backward pass"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
