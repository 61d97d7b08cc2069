"""The input of a mapper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MapperInput:
    """Attention of one prompt's instruction tokens to its visual tokens, in one decoder layer.

    Attributes:
        attention: float [2, heads, N], natural logarithms of two statistics over the instruction
            tokens: their mean attention to each of N visual tokens, and the highest share that
            one of them gives a visual token, of all that it gives to visual tokens.
        grids: int64 [frames, rows, columns] each, the grids over the images or videos: which of
            the N tokens covers each cell.
    """

    attention: Tensor
    grids: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """N, visual tokens of the prompt."""
        return self.attention.shape[-1]

    @property
    def log_mean_attention(self) -> Tensor:
        """Logarithm of the mean attention over instruction tokens and heads, float32 [N]."""
        return self.attention[0].float().exp().mean(dim=0).log()

    def to(self, device: torch.device | str) -> MapperInput:
        """A copy on another device, in float32."""
        return MapperInput(
            self.attention.to(device, torch.float32), tuple(grid.to(device) for grid in self.grids)
        )
