"""PruMerge: outliers of the vision tower's attention, and an even sample of the rest."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..selection import Candidates
from .uniform import UniformScorer
from .visionzip import VisionZipScorer


class PruMergeScorer(VisionZipScorer):
    """Tokens to which the vision tower pays outstanding attention, then evenly spread ones.

    The selection of PruMerge+ (https://arxiv.org/abs/2403.15388) within a given budget: outliers
    are the tokens whose attention is above Q3 + 1.5 (Q3 - Q1), Q1 and Q3 being quartiles over the
    prompt; the others are spread as by the scorer "uniform". The paper lets the number of outliers
    decide how many tokens stay, takes the attention of the last layer, and merges what it drops
    into what it keeps; none of these is done here.
    """

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        scores = candidates.scores  # [N], none negative
        low, high = scores.quantile(scores.new_tensor([0.25, 0.75]))
        outlier = scores > high + 1.5 * (high - low)  # [N]
        # Outliers by their attention, which is above 0, then the others by their place.
        positions = torch.cat([visual.positions for visual in prompt.visuals[sample]])  # [N]
        places = UniformScorer().score(prompt)[sample, positions].to(scores)  # [N], at most 0
        value = torch.where(outlier, scores, places).masked_fill(candidates.kept, -torch.inf)
        return value.argsort(descending=True, stable=True)[: candidates.count]
