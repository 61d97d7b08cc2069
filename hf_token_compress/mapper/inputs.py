"""The input of a mapper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from ..config import MapperInputName

INPUTS: tuple[MapperInputName, ...] = get_args(MapperInputName)
"""Groups of input channels, in the order in which a network has them."""

_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class MapperInput:
    """What a mapper may see of one prompt's visual tokens, without the groups that none asks for.

    Attributes:
        attention: float [2, heads, N], natural logarithms of two statistics over the instruction
            tokens: their mean attention to each of N visual tokens, and the highest share that
            one of them gives a visual token, of all that it gives to visual tokens.
        grids: int64 [frames, rows, columns] each, the grids over the images or videos: which of
            the N tokens covers each cell.
        text: float [2, N], mean and maximum over the instruction tokens of the cosine between
            their embeddings and that of each visual token.
        embedding: float [2, N], natural logarithm of the norm of each visual token's embedding,
            and its cosine to the mean of the N embeddings.
    """

    attention: Tensor
    grids: tuple[Tensor, ...]
    text: Tensor | None = None
    embedding: Tensor | None = None

    @property
    def count(self) -> int:
        """N, visual tokens of the prompt."""
        return self.attention.shape[-1]

    @property
    def log_mean_attention(self) -> Tensor:
        """Logarithm of the mean attention over instruction tokens and heads, float32 [N]."""
        return self.attention[0].float().exp().mean(dim=0).log()

    def standardized(self, inputs: Sequence[str]) -> list[Tensor]:
        """Of the named groups but attention, float32 [2, N] each, in the order of `INPUTS`.

        Each channel has mean 0 and standard deviation 1 over the N tokens; one that hardly varies
        stays near 0.

        Raises:
            ValueError: A group is missing.
        """
        channels = []
        for name in INPUTS[1:]:
            if name not in inputs:
                continue
            values: Tensor | None = getattr(self, name)
            if values is None:
                raise ValueError(
                    f"The mapper reads {name!r}, but its MapperInput has none: pass {name}=."
                )
            centred = values.float() - values.float().mean(dim=-1, keepdim=True)  # [2, N]
            deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()  # [2, 1]
            channels.append(centred / deviation.clamp(min=_SMALLEST_DEVIATION))  # [2, N]
        return channels

    def to(self, device: torch.device | str) -> MapperInput:
        """A copy on another device, in float32."""

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device, torch.float32)

        return replace(
            self,
            attention=self.attention.to(device, torch.float32),
            grids=tuple(grid.to(device) for grid in self.grids),
            text=moved(self.text),
            embedding=moved(self.embedding),
        )


def standardized_channels(inputs: Sequence[str]) -> int:
    """Number of channels of `MapperInput.standardized`."""
    return 2 * len(set(inputs) - {"attention"})
