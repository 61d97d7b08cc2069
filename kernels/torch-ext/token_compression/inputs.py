"""Checks of a kernel's arguments, before anything is launched."""

from __future__ import annotations

import torch
from torch import Tensor


def check_floating(**tensors: Tensor) -> None:
    """All are of one floating dtype.

    Raises:
        ValueError: One is not.
    """
    (first, reference), *others = tensors.items()
    if not reference.is_floating_point():
        raise ValueError(f"{first} must be a floating tensor, but is {reference.dtype}.")
    for name, tensor in others:
        if tensor.dtype != reference.dtype:
            raise ValueError(
                f"{name} must have the dtype of {first} ({reference.dtype}), but is {tensor.dtype}."
            )


def check_contiguous(**tensors: Tensor) -> None:
    """The elements of a head stand side by side in memory, as the Triton kernels read them.

    Raises:
        ValueError: They do not.
    """
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1 and tensor.numel() > 0:
            raise ValueError(
                f"the last dimension of {name} must be contiguous, but its stride is "
                f"{tensor.stride(-1)}: call .contiguous() on it first."
            )


def check_dtype(expected: torch.dtype, **tensors: Tensor) -> None:
    """All have exactly this dtype.

    Raises:
        ValueError: One has not.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != expected:
            raise ValueError(f"{name} must be {expected}, but is {tensor.dtype}.")


def check_device(**tensors: Tensor) -> None:
    """All are on one device.

    Raises:
        ValueError: One is not.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(
                f"{name} must be on the device of {first} ({reference.device}), but is on "
                f"{tensor.device}."
            )


def check_heads(heads: int, head_dim: int, key_heads: int, key_dim: int) -> None:
    """Query heads can share the key heads.

    Raises:
        ValueError: They cannot.
    """
    if key_dim != head_dim or key_heads == 0 or heads % key_heads != 0:
        raise ValueError(
            f"query heads {heads} x {head_dim} do not fit key heads {key_heads} x {key_dim}: the "
            "head sizes must be equal and the query heads a multiple of the key heads."
        )


def check_window(sliding_window: int | None) -> None:
    """A row sees at least itself.

    Raises:
        ValueError: It does not.
    """
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(
            f"sliding_window must be at least 1, or None for all keys, but is {sliding_window}."
        )
