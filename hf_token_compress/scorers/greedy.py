"""Pieces of rules that choose visual tokens one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..selection import Candidates
from ..selection.diverse import largest_cosine


def choose_one_by_one(
    candidates: Candidates, value: Callable[[], Tensor], take: Callable[[Tensor], None]
) -> Tensor:
    """Take the best token again and again; between equal values the earlier one.

    The host does not wait for the device.

    Args:
        candidates: The tokens of a prompt.
        value: Returns what each token is worth now, float [N].
        take: Called with the index of each token that is taken, int64 [1].

    Returns:
        int64 [count], in the order of choice.
    """
    taken = candidates.kept.clone()
    chosen = [torch.empty(0, dtype=torch.long, device=taken.device)]
    for _ in range(candidates.count):
        best = value().masked_fill(taken, -torch.inf).argmax(dim=0, keepdim=True)  # [1]
        taken[best] = True
        take(best)
        chosen.append(best)
    return torch.cat(chosen)


class KeptSimilarity:
    """Largest cosine of each token of a prompt to the tokens that are kept.

    Attributes:
        unit: float32 [N, D], embeddings at length 1.
        largest: float32 [N], -1 while nothing is kept.
    """

    def __init__(self, candidates: Candidates) -> None:
        self.unit = normalize(candidates.embeddings, dim=-1)
        self.largest = largest_cosine(self.unit, self.unit[candidates.kept])

    def add(self, index: Tensor) -> None:
        """Keep one more token, int64 [1]."""
        cosine = (self.unit @ self.unit[index].T).squeeze(1)  # [N]
        self.largest = torch.maximum(self.largest, cosine)
