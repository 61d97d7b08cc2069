"""CDPruner: tokens that the instruction is about and that differ from each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..selection import Candidates
from ..selection.diverse import scaled_importance
from .greedy import choose_one_by_one
from .text_similarity import TextSimilarityScorer

_SMALLEST_RELEVANCE = 1e-6
_SMALLEST_VOLUME = 1e-10


class CDPrunerScorer(TextSimilarityScorer):
    """Greedy maximum of a determinantal point process, conditioned on the instruction.

    From CDPruner (https://arxiv.org/abs/2506.10967). The kernel is w_i cos(v_i, v_j) w_j, with
    weights w from the relevance of each token. The paper takes relevance for LLaVA from CLIP's text
    tower, which Transformers' models do not hold; here it is the mean cosine to the instruction in
    the language model's embeddings. Once the kept tokens span all directions, the most relevant of
    the rest follow. Takes count² · N multiplications.

    Args:
        theta: Balance of relevance against diversity in [0, 1): w = exp(r theta / (2 - 2 theta)),
            r being relevance scaled to [0, 1]. By default w = r.

    Raises:
        TypeError: `theta` is not a number.
        ValueError: It is out of range.
    """

    def __init__(self, theta: float | None = None) -> None:
        if theta is not None:
            check_number("theta", theta, "[0, 1)")
        self.theta = theta

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        relevance = scaled_importance(candidates.scores)  # [N]
        unit = normalize(candidates.embeddings, dim=-1)
        kept = candidates.kept.nonzero()  # [kept, 1]
        items = unit * self._weights(relevance).to(unit)[:, None]
        kernel = GreedyKernel(items, steps=len(kept) + candidates.count)
        for index in kept:
            kernel.take(index)
        # Directions that are used up come last, by relevance in [-2, -1].
        last = relevance.to(unit) - 2

        def value() -> Tensor:
            return torch.where(kernel.volume > _SMALLEST_VOLUME, kernel.volume, last)

        return choose_one_by_one(candidates, value, kernel.take)

    def _weights(self, relevance: Tensor) -> Tensor:
        if self.theta is None:
            return relevance.clamp(min=_SMALLEST_RELEVANCE)
        return torch.exp(relevance * self.theta / (2 * (1 - self.theta)))


class GreedyKernel:
    """Volume that each item would add to those taken, by incremental Cholesky (arXiv 1709.05135).

    Attributes:
        volume: float32 [N], squared.
    """

    def __init__(self, items: Tensor, steps: int) -> None:
        """Start with nothing taken of items whose products are the kernel, float32 [N, D]."""
        self._items = items
        self._factor = items.new_zeros(steps, len(items))  # [steps, N]
        self._taken = 0
        self.volume = items.square().sum(dim=1)

    def take(self, index: Tensor) -> None:
        """Take an item, int64 [1]; one that adds no volume changes nothing."""
        products = (self._items @ self._items[index].T).squeeze(1)  # [N]
        known = self._factor[: self._taken]  # [taken, N]
        explained = (known[:, index].T @ known).squeeze(0)  # [N]
        own = self.volume[index]  # [1]
        row = (products - explained) / own.clamp(min=_SMALLEST_VOLUME).sqrt()
        row = torch.where(own > _SMALLEST_VOLUME, row, 0.0)
        self._factor[self._taken] = row
        self._taken += 1
        self.volume = self.volume - row.square()
