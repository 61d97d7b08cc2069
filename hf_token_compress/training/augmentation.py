"""Random variants of a mapper's inputs, for training on few samples."""

from __future__ import annotations

import torch

from ..mapper import MapperInput


def augment(
    item: MapperInput,
    generator: torch.Generator,
    *,
    random_flip: bool = False,
    head_dropout: float = 0.0,
    noise: float = 0.0,
) -> MapperInput:
    """Make a random variant of an input that keeps the same tokens relevant.

    Args:
        item: The input.
        generator: Random number generator on the CPU.
        random_flip: Flip the grids vertically, horizontally and along the diagonal, each with a
            probability of one half, so that all directions become alike.
        head_dropout: Probability that a head's attention is replaced by its mean, in [0, 1).
        noise: Standard deviation of the noise on the log-attention.
    """
    attention, grids = item.attention.float(), item.grids
    if random_flip:
        flips = (
            lambda grid: grid.flip(1),
            lambda grid: grid.flip(2),
            lambda grid: grid.transpose(1, 2),
        )
        for flip in flips:
            if torch.rand((), generator=generator) < 0.5:
                grids = tuple(map(flip, grids))
    if noise > 0.0:
        normal = torch.randn(attention.shape, generator=generator)
        attention = attention + noise * normal.to(attention.device)
    if head_dropout > 0.0:
        dropped = torch.rand(1, attention.shape[1], 1, generator=generator) < head_dropout
        mean = attention.mean(dim=-1, keepdim=True)  # [2, heads, 1]
        attention = torch.where(dropped.to(attention.device), mean, attention)
    return MapperInput(attention, grids)
