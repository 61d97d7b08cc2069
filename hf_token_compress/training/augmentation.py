"""Changed copies of what a mapper sees, so that few samples teach more."""

from __future__ import annotations

import torch

from ..mapper import MapperInput


def augment(
    item: MapperInput,
    generator: torch.Generator,
    *,
    mirror: bool = False,
    head_dropout: float = 0.0,
    noise: float = 0.0,
) -> MapperInput:
    """A random variant of an input, for which the same tokens are relevant.

    Args:
        item: The input.
        generator: Where chance comes from, on the CPU.
        mirror: Mirror the grids upside down, left to right, and at the diagonal, each by half a
            chance. It teaches that all directions are alike, which few samples cannot refute.
        head_dropout: Chance of each head to see all tokens alike, in [0, 1).
        noise: Standard deviation of what is added to the logarithms of the attention.
    """
    attention, grids = item.attention.float(), item.grids
    if mirror:
        for change in (
            lambda grid: grid.flip(1),
            lambda grid: grid.flip(2),
            lambda grid: grid.transpose(1, 2),
        ):
            if torch.rand((), generator=generator) < 0.5:
                grids = tuple(map(change, grids))
    if noise > 0.0:
        disturbance = torch.randn(attention.shape, generator=generator)
        attention = attention + noise * disturbance.to(attention.device)
    if head_dropout > 0.0:
        dropped = torch.rand(1, attention.shape[1], 1, generator=generator) < head_dropout
        even = attention.mean(dim=-1, keepdim=True)
        attention = torch.where(dropped.to(attention.device), even, attention)
    return MapperInput(attention, grids)
