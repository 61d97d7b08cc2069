"""DivPrune: tokens as far from each other as possible."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..selection import Candidates
from .base import Scorer
from .greedy import KeptSimilarity, choose_one_by_one
from .visual_tokens import score_each_prompt, unit_embeddings

_ROWS_PER_CHUNK = 1024


class DivPruneScorer(Scorer):
    """Farthest-point sampling by cosine distance; the instruction plays no part.

    From DivPrune (https://arxiv.org/abs/2503.02175): first the token whose nearest other token is
    farthest, then again and again the one that is farthest from the nearest token kept. All images
    of a prompt are one set. The score is the distance to the nearest other token.
    """

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        def distance(sample: int, positions: Tensor) -> Tensor:
            unit = unit_embeddings(prompt, sample, positions)  # [N, D]
            return 1 - nearest_cosine(unit)

        return score_each_prompt(prompt, distance)

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        similarity = KeptSimilarity(candidates)
        nothing_kept = ~candidates.kept.any()
        # The first of all has no distance to what is kept.
        start = torch.where(nothing_kept, candidates.scores.to(similarity.largest), 0.0)  # [N]

        def take(index: Tensor) -> None:
            start.zero_()
            similarity.add(index)

        return choose_one_by_one(candidates, lambda: start - similarity.largest, take)


def nearest_cosine(unit: Tensor) -> Tensor:
    """Cosine of each token to the nearest other one, without holding all of them.

    Args:
        unit: float32 [N, D], of length 1.

    Returns:
        float32 [N]; -1 for a token alone.
    """
    parts = []
    for rows in torch.arange(len(unit), device=unit.device).split(_ROWS_PER_CHUNK):
        cosines = unit[rows] @ unit.T  # [rows, N]
        cosines[torch.arange(len(rows), device=rows.device), rows] = -1.0
        parts.append(cosines.amax(dim=1))
    return torch.cat(parts)
