"""SCOPE: salient tokens that stand for what the kept ones do not cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..selection import Candidates
from .greedy import KeptSimilarity, choose_one_by_one
from .importance import ImportanceScorer


class ScopeScorer(ImportanceScorer):
    """Greedy gain in coverage times saliency.

    From SCOPE (https://arxiv.org/abs/2510.24214). A token is covered as far as it is similar to one
    that is kept: c_i, the largest cosine, at least 0. The gain of u is the sum over all tokens i of
    max(0, cos(i, u) - c_i), times saliency to the power of `alpha`. Takes count · N² operations and
    N² floats of memory.

    Args:
        alpha: Power of the saliency, at least 0.
        importance: Name of the scorer that gives saliency; the paper's is the attention in the
            vision tower. Negative scores are shifted to begin at 0.
        importance_options: Its keyword arguments.

    Raises:
        TypeError, ValueError: As in `ImportanceScorer`, or `alpha` is not a number of at least 0.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        importance: str = "visionzip",
        importance_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_number("alpha", alpha, "[0, inf)")
        super().__init__(importance, importance_options)
        self.alpha = alpha

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        similarity = KeptSimilarity(candidates)
        cosines = similarity.unit @ similarity.unit.T  # [N, N]
        scores = candidates.scores.to(cosines)
        saliency = (scores - scores.amin().clamp(max=0)) ** self.alpha  # [N]

        def value() -> Tensor:
            covered = similarity.largest.clamp(min=0)  # [N]
            gain = (cosines - covered[:, None]).clamp_(min=0).sum(dim=0)  # [N]
            return gain * saliency

        return choose_one_by_one(candidates, value, similarity.add)
