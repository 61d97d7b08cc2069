"""Random inputs of the kernels at the layer shapes of Qwen2-VL-7B."""

from __future__ import annotations

import torch
from torch import Tensor

HEADS, KEY_HEADS, HEAD_DIM = 28, 4, 128
"""Of a decoder layer of Qwen2-VL-7B."""


def attention_problem(
    length: int, instruction: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Arguments of `instruction_attention`: the last tokens are the instruction."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    return (
        normal(instruction, HEADS, HEAD_DIM),
        normal(1, length, KEY_HEADS, HEAD_DIM),
        torch.zeros(instruction, dtype=torch.int64, device=device),
        torch.arange(length - instruction, length, device=device),
        torch.ones(1, length, dtype=torch.bool, device=device),
    )


def step_problem(
    length: int, targets: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Arguments of `relevance_step`: every token carries relevance, as below the top layer."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    return (
        torch.rand(targets, 1, length, generator=generator, device=device),
        normal(1, HEADS, length, HEAD_DIM),
        normal(1, KEY_HEADS, length, HEAD_DIM),
        normal(1, KEY_HEADS, length, HEAD_DIM),
        normal(targets, 1, HEADS, length, HEAD_DIM),
    )
