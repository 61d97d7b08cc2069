"""The tokens of a batch that stay, and how many they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class KeptTokens:
    """The tokens of a batch of B prompts of S tokens that stay.

    Attributes:
        mask: bool [B, S], True on tokens that stay; never on padding.
        counts: How many stay of each prompt.
        on_host: The mask on the CPU, if the host has read it.
    """

    mask: Tensor
    counts: tuple[int, ...]
    on_host: Tensor | None = None

    @classmethod
    def read(cls, mask: Tensor) -> KeptTokens:
        """Count the tokens of a mask, which waits for its device."""
        on_host = mask.cpu()
        return cls(mask, tuple(on_host.sum(dim=1).tolist()), on_host)
