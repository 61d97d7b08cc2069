"""Bring what the host must know of a prompt to the CPU in one copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def on_host(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a forward, with what lays out the prompts on the CPU.

    These are ids, masks, token types, positions, labels and sizes: integer tensors, and floats of
    one axis. Features and pixels stay where they are, and so does everything that is on the CPU.
    """
    moved = {
        name: value
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.device.type not in ("cpu", "meta") and _plans(value)
    }
    if not moved:
        return dict(inputs)
    return {**inputs, **dict(zip(moved, to_host(moved.values()), strict=True))}


def to_host(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors on the CPU; those of one device are copied, and waited for, together."""
    tensors = list(tensors)
    found = list(tensors)
    for device in {tensor.device for tensor in tensors if tensor.device.type != "cpu"}:
        numbers = [number for number, own in enumerate(tensors) if own.device == device]
        # The widest types first, so that each part starts where its type may.
        numbers.sort(key=lambda number: -tensors[number].itemsize)
        parts = [tensors[number].reshape(-1).view(torch.uint8) for number in numbers]
        packed = (torch.cat(parts) if len(parts) > 1 else parts[0]).cpu()
        for number, part in zip(numbers, packed.split([len(own) for own in parts]), strict=True):
            own = tensors[number]
            found[number] = part.view(own.dtype).view(own.shape)
    return found


def _plans(tensor: Tensor) -> bool:
    """Whether a tensor may say where tokens lie, rather than what an image looks like."""
    if tensor.is_floating_point():
        return tensor.ndim == 1
    return tensor.ndim <= 3 and not tensor.is_complex()
