"""ZOO-Prune: important tokens that are unlike those already kept, as a product."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..selection import Candidates
from ..selection.diverse import greedy_diverse
from .importance import ImportanceScorer


class ZooPruneScorer(ImportanceScorer):
    """Importance times distance to the kept tokens.

    The selection of ZOO-Prune (https://arxiv.org/abs/2509.24837): first the most important token,
    then again and again the one with the largest importance · (1 - largest cosine to a kept token).
    The paper's importance, how sensitive the projector is to a token, is not computed here: it is
    that of another scorer, scaled to [0, 1].

    Args:
        importance: Name of the scorer that gives importance.
        importance_options: Its keyword arguments.

    Raises:
        TypeError, ValueError: As in `ImportanceScorer`.
    """

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        return greedy_diverse(candidates)
