"""Tokens that are important and unlike those already kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .candidates import Candidates


def greedy_diverse(candidates: Candidates) -> Tensor:
    """One token after another, the best by importance × (1 − largest cosine to what is kept).

    Importance is the score, scaled to [0, 1] over the prompt's visual tokens. Cosines are those of
    the tokens' embeddings. This is the exact rule; its steps are sequential.

    Returns:
        int64 [count], in the order in which they were chosen.
    """
    importance = scaled_importance(candidates.scores)  # [N]
    directions = normalize(candidates.embeddings, dim=-1)  # [N, D]
    kept = candidates.kept.clone()
    largest = largest_cosine(directions, directions[kept])  # [N]
    chosen = []
    for _ in range(candidates.count):
        gains = (importance * (1 - largest)).masked_fill(kept, -torch.inf)  # [N]
        best = gains.argmax()
        chosen.append(best)
        kept[best] = True
        largest = torch.maximum(largest, directions @ directions[best])
    return torch.stack(chosen)


def scaled_importance(scores: Tensor) -> Tensor:
    """Scores, float [N], scaled to [0, 1]; all 1 if they are equal."""
    low, high = scores.aminmax()
    scaled = (scores - low) / (high - low)
    return torch.where(high > low, scaled, 1.0)


def largest_cosine(directions: Tensor, kept: Tensor) -> Tensor:
    """Largest cosine of each token to the kept ones, float [N]; -1 if there are none.

    Args:
        directions: float [N, D], of length 1.
        kept: float [K, D], of length 1.
    """
    if len(kept) == 0:
        return directions.new_full((len(directions),), -1.0)
    return (directions @ kept.T).amax(dim=1)
