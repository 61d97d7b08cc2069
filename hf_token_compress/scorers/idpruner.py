"""IDPruner: important tokens that are unlike those already kept, as a weighted difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..selection import Candidates
from ..selection.diverse import scaled_importance
from .greedy import KeptSimilarity, choose_one_by_one
from .importance import ImportanceScorer


class IDPrunerScorer(ImportanceScorer):
    """Maximal marginal relevance.

    From IDPruner (https://arxiv.org/abs/2602.13315): first the most important token, then again and
    again the one with the largest balance · importance - (1 - balance) · (largest cosine to a kept
    token), importance being scaled to [0, 1]. The paper takes importance from a trained network.

    Args:
        balance: Weight of importance, in [0, 1].
        importance: Name of the scorer that gives importance.
        importance_options: Its keyword arguments.

    Raises:
        TypeError, ValueError: As in `ImportanceScorer`, or `balance` is not a number in [0, 1].
    """

    def __init__(
        self,
        balance: float = 0.5,
        importance: str = "attention",
        importance_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_number("balance", balance, "[0, 1]")
        super().__init__(importance, importance_options)
        self.balance = balance

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        similarity = KeptSimilarity(candidates)
        wanted = self.balance * scaled_importance(candidates.scores).to(similarity.unit)  # [N]

        def value() -> Tensor:
            return wanted - (1 - self.balance) * similarity.largest

        return choose_one_by_one(candidates, value, similarity.add)
