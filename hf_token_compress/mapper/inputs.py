"""What a mapper sees of one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STATISTICS = 2
"""Statistics over the instruction rows: their mean, and the highest share that one row gives."""


@dataclass(frozen=True)
class MapperInput:
    """Attention of one prompt's instruction to its visual tokens, in one decoder layer.

    Attributes:
        attention: float [2, heads, N], natural logarithms. First the mean over the instruction rows
            of their attention to each of N visual tokens; then the highest share, over the rows, of
            what a row gives to visual tokens at all.
        grids: int64 [frames, rows, columns] each: which of the N tokens covers each cell of each
            grid of each image or video.
    """

    attention: Tensor
    grids: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """N, visual tokens of the prompt."""
        return self.attention.shape[-1]

    @property
    def log_mean_attention(self) -> Tensor:
        """Logarithm of the attention to each token, mean over rows and heads: float32 [N]."""
        return self.attention[0].float().exp().mean(dim=0).log()

    def to(self, device: torch.device | str) -> MapperInput:
        """The same on another device, in float32."""
        return MapperInput(
            self.attention.to(device, torch.float32), tuple(grid.to(device) for grid in self.grids)
        )
