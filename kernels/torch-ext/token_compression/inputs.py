"""Checks of a kernel's arguments before its launch."""

from __future__ import annotations

import torch
from torch import Tensor


def check_floating(**tensors: Tensor) -> None:
    """Check that all tensors have the same floating dtype.

    Raises:
        ValueError: A tensor has another dtype.
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
    """Check that the elements of a head are adjacent in memory, as the Triton kernels need.

    Raises:
        ValueError: The last dimension of a tensor is not contiguous.
    """
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1 and tensor.numel() > 0:
            raise ValueError(
                f"the last dimension of {name} must be contiguous, but its stride is "
                f"{tensor.stride(-1)}: call .contiguous() on it first."
            )


def check_dtype(expected: torch.dtype, **tensors: Tensor) -> None:
    """Check that all tensors have this dtype.

    Raises:
        ValueError: A tensor has another dtype.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != expected:
            raise ValueError(f"{name} must be {expected}, but is {tensor.dtype}.")


def check_device(**tensors: Tensor) -> None:
    """Check that all tensors are on one device.

    Raises:
        ValueError: A tensor is on another device.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(
                f"{name} must be on the device of {first} ({reference.device}), but is on "
                f"{tensor.device}."
            )


def check_heads(heads: int, head_dim: int, key_heads: int, key_dim: int) -> None:
    """Check that query heads can share the key heads.

    Raises:
        ValueError: The head sizes differ, or the query heads are not a multiple of the key heads.
    """
    if key_dim != head_dim or key_heads == 0 or heads % key_heads != 0:
        raise ValueError(
            f"query heads {heads} x {head_dim} do not fit key heads {key_heads} x {key_dim}: the "
            "head sizes must be equal and the query heads a multiple of the key heads."
        )


def check_window(sliding_window: int | None) -> None:
    """Check that a token can attend at least to itself.

    Raises:
        ValueError: The window is smaller than 1.
    """
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(
            f"sliding_window must be at least 1, or None for all keys, but is {sliding_window}."
        )
