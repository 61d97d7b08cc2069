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

_SMALLEST_RESIDUAL = 1e-6
"""What rounding in float32 leaves of a token whose direction is used up."""


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
        unit = normalize(candidates.embeddings, dim=-1)  # [N, D]
        relevance = scaled_importance(candidates.scores).to(unit)  # [N]
        kept = candidates.kept.nonzero()  # [kept, 1]
        directions = UnusedDirections(unit, steps=len(kept) + candidates.count)
        for index in kept:
            directions.take(index)
        weights = self._weights(relevance)

        def value() -> Tensor:
            # The determinant grows by this factor; where it does not grow, relevance in [-2, -1].
            grows = directions.residual > _SMALLEST_RESIDUAL
            return torch.where(grows, weights.square() * directions.residual, relevance - 2)

        return choose_one_by_one(candidates, value, directions.take)

    def _weights(self, relevance: Tensor) -> Tensor:
        if self.theta is None:
            return relevance
        return torch.exp(relevance * self.theta / (2 * (1 - self.theta)))


class UnusedDirections:
    """What is left of each token outside the span of those taken, by incremental Cholesky.

    Weights of the kernel only scale what is left, so they play no part here. The algorithm is that
    of https://arxiv.org/abs/1709.05135.

    Args:
        unit: float32 [N, D], rows of length 1.
        steps: Most tokens that are taken.

    Attributes:
        residual: float32 [N], squared length of what is left.
    """

    def __init__(self, unit: Tensor, steps: int) -> None:
        self._unit = unit
        self._factor = unit.new_zeros(steps, len(unit))  # [steps, N]
        self._taken = 0
        self.residual = unit.new_ones(len(unit))

    def take(self, index: Tensor) -> None:
        """Take a token, int64 [1]; one of which nothing is left changes nothing."""
        cosines = (self._unit @ self._unit[index].T).squeeze(1)  # [N]
        known = self._factor[: self._taken]  # [taken, N]
        explained = (known[:, index].T @ known).squeeze(0)  # [N]
        own = self.residual[index]  # [1]
        row = (cosines - explained) / own.clamp(min=_SMALLEST_RESIDUAL).sqrt()
        row = torch.where(own > _SMALLEST_RESIDUAL, row, 0.0)
        self._factor[self._taken] = row
        self._taken += 1
        self.residual = self.residual - row.square()
