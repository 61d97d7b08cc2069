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

WORDS = "words"
"""The embeddings themselves, which only the network "question" reads, and no others."""


@dataclass(frozen=True)
class MapperInput:
    """What a mapper may see of one prompt's visual tokens, without the groups that none asks for.

    Attributes:
        attention: float [2, heads, N], natural logarithms of two statistics over the instruction
            tokens: their mean attention to each of N visual tokens, and the highest share that
            one of them gives a visual token, of all that it gives to visual tokens.
        grids: int64 [frames, rows, columns] each, the grids over the images or videos: which of
            the N tokens covers each cell. They are read on the CPU.
        text: float [2, N], mean and maximum over the instruction tokens of the cosine between
            their embeddings and that of each visual token.
        embedding: float [2, N], natural logarithm of the norm of each visual token's embedding,
            and its cosine to the mean of the N embeddings.
        tokens: float [N, D], the embeddings of the visual tokens.
        words: float [R, D], the embeddings of R instruction tokens, in order.
    """

    attention: Tensor
    grids: tuple[Tensor, ...]
    text: Tensor | None = None
    embedding: Tensor | None = None
    tokens: Tensor | None = None
    words: Tensor | None = None

    @property
    def count(self) -> int:
        """N, visual tokens of the prompt."""
        return self.attention.shape[-1]

    def to(self, device: torch.device | str) -> MapperInput:
        """A copy on another device, in float32 but for `tokens` and `words`, which are large.

        Grids stay where they are.
        """

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device, torch.float32)

        return replace(
            self,
            attention=self.attention.to(device, torch.float32),
            text=moved(self.text),
            embedding=moved(self.embedding),
            tokens=None if self.tokens is None else self.tokens.to(device),
            words=None if self.words is None else self.words.to(device),
        )


def standardized_channels(inputs: Sequence[str]) -> int:
    """Number of channels of `MapperBatch.standardized`."""
    return 2 * len(set(inputs) - {"attention"})
