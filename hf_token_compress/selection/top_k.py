"""The tokens with the highest scores."""

from __future__ import annotations

import torch
from torch import Tensor

from .candidates import Candidates


def top_k(candidates: Candidates) -> Tensor:
    """The best tokens that are not kept yet; between equal scores the earlier one.

    Returns:
        int64 [count].
    """
    scores = candidates.scores.masked_fill(candidates.kept, -torch.inf)
    return torch.sort(scores, descending=True, stable=True).indices[: candidates.count]
