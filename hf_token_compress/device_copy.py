"""What the host does for a device: one copy instead of many, and few large launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes that every tensor starts on, so that its part of the copy can be viewed as any dtype."""


def few_launches(device: torch.device) -> bool:
    """Whether work is done in few large pieces, because launching costs more than memory.

    A CPU is faster, and needs less memory, with many small ones.
    """
    return device.type != "cpu"


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of tensors of the CPU on a device.

    They are packed into one buffer, whose copy the host does not wait for on CUDA. On the CPU they
    are returned as they are.
    """
    if device.type == "cpu":
        return list(tensors)
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    pinned = device.type == "cuda"
    packed = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
    parts = [
        packed[start : start + tensor.nbytes] for start, tensor in zip(starts, tensors, strict=True)
    ]
    for part, tensor in zip(parts, tensors, strict=True):
        part.view(tensor.dtype).view(tensor.shape).copy_(tensor)
    # Without pinned memory, the buffer might be gone before it is copied.
    moved = packed.to(device, non_blocking=pinned)
    return [
        moved[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, tensors, strict=True)
    ]
