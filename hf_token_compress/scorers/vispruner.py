"""VisPruner: half of the tokens by the vision tower's attention, half without duplicates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from ..checks import check_count, check_number
from ..prompt import MultimodalPrompt
from ..selection import Candidates
from .visionzip import VisionZipScorer


class VisPrunerScorer(VisionZipScorer):
    """The tokens that the vision tower attends to, and a varied rest.

    From VisPruner (https://arxiv.org/abs/2412.01818). The rest is what remains after duplicates are
    removed in rounds: tokens at even and odd places are compared, and the even ones that are most
    similar to an odd one go. Takes N² floats of memory.

    Args:
        salient_share: Share of the kept tokens that attention decides, in [0, 1].
        removed_per_round: Most duplicates that one round removes, at least 1.

    Raises:
        TypeError: An option is not a number, or not a whole one.
        ValueError: It is out of range.
    """

    def __init__(self, salient_share: float = 0.5, removed_per_round: int = 8) -> None:
        check_number("salient_share", salient_share, "[0, 1]")
        check_count("removed_per_round", removed_per_round, at_least=1)
        self.salient_share = salient_share
        self.removed_per_round = removed_per_round

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        kept = int(candidates.kept.sum())
        salient_count = round(self.salient_share * (kept + candidates.count)) - kept
        salient_count = min(max(salient_count, 0), candidates.count)
        free = (~candidates.kept).nonzero().flatten()  # [free]
        order = candidates.scores[free].argsort(descending=True, stable=True)
        salient = free[order[:salient_count]]
        rest = free[order[salient_count:].sort().values]
        varied = self._varied(rest, candidates, candidates.count - salient_count)
        return torch.cat([salient, varied])

    def _varied(self, rest: Tensor, candidates: Candidates, count: int) -> Tensor:
        """Those of the tokens, int64 [rest], that stay after `rest - count` duplicates."""
        if count == 0:
            return rest[:0]
        unit = normalize(candidates.embeddings[rest], dim=-1)
        cosines = unit @ unit.T  # [rest, rest]
        left = torch.arange(len(rest), device=rest.device)
        while len(left) > count:
            even, odd = left[::2], left[1::2]
            similarity = cosines[even[:, None], odd].amax(dim=1)  # [even]
            removed = min(self.removed_per_round, len(left) - count, len(even))
            duplicates = similarity.argsort(descending=True, stable=True)[:removed]
            gone = torch.zeros_like(left).index_fill(0, 2 * duplicates, 1)
            left = left[gone.argsort(stable=True)[: len(left) - removed]]
        return rest[left]
