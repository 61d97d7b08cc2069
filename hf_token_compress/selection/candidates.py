"""What a selection rule chooses from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """The N visual tokens of one prompt, some of which are kept already.

    Attributes:
        scores: float32 [N].
        kept: bool [N], structure tokens that come first and, where there are several images,
            videos or frames, the minimum of each.
        count: How many more are to be chosen; at least one, and at most those that are not kept.
        embed: Computes `embeddings`.
    """

    scores: Tensor
    kept: Tensor
    count: int
    embed: Callable[[], Tensor]

    @cached_property
    def embeddings(self) -> Tensor:
        """Float32 [N, D], the tokens as they enter the language model."""
        return self.embed()


def no_embeddings() -> NoReturn:
    """Stands for embeddings where only rules that read none are used."""
    raise TypeError("This rule compares embeddings: pass a function that computes them.")
