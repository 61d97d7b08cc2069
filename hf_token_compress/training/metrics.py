"""How well a prediction of relevance ranks the visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor

RECALL_SHARES = (0.5, 0.25, 0.1)
"""Shares of the visual tokens at which recall is measured."""


def top_recall(prediction: Tensor, relevance: Tensor, share: float) -> float:
    """Share of the most relevant tokens that are also among the highest predictions.

    Args:
        prediction: float [N].
        relevance: float [N].
        share: Share of the tokens in (0, 1]. It is rounded to the nearest token, at least one.
    """
    count = max(1, round(share * len(relevance)))
    best = torch.sort(relevance, descending=True, stable=True).indices[:count]
    chosen = torch.sort(prediction, descending=True, stable=True).indices[:count]
    return float(torch.isin(chosen, best).float().mean())


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two float [N]; zero if one of them is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / scale) if scale > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value, float64 [N]; equal values share the mean of their ranks."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
