"""Random variants of a mapper's inputs, for training on few samples."""

from __future__ import annotations

import torch
from torch import Tensor

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
        head_dropout: Probability that a head's attention, or a channel of the other inputs, is
            replaced by its mean, in [0, 1).
        noise: Standard deviation of the noise on the log-attention; on the other inputs, in units
            of their own standard deviation.
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
    others = [
        _vary(values, generator, dropout=head_dropout, noise=noise)
        for values in (item.text, item.embedding)
    ]
    return MapperInput(attention, grids, *others)


def _vary(
    values: Tensor | None, generator: torch.Generator, *, dropout: float, noise: float
) -> Tensor | None:
    """A variant of channels [C, N]."""
    if values is None:
        return None
    mean = values.mean(dim=-1, keepdim=True)  # [C, 1]
    if noise > 0.0:
        deviation = (values - mean).square().mean(dim=-1, keepdim=True).sqrt()  # [C, 1]
        normal = torch.randn(values.shape, generator=generator).to(values)
        values = values + noise * deviation * normal
    if dropout > 0.0:
        dropped = torch.rand(len(values), 1, generator=generator) < dropout
        values = torch.where(dropped.to(values.device), mean, values)
    return values
