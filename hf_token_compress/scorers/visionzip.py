"""VisionZip's dominant tokens: those that the vision tower itself attends to."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from .base import Scorer


class VisionZipScorer(Scorer):
    """Attention that visual tokens receive in the second-to-last layer of the vision tower.

    These are the dominant tokens of VisionZip (https://arxiv.org/abs/2412.04467). Its contextual
    tokens, means of the others, are left out: compression keeps features as they are.
    """

    needs = frozenset({"vision_attention"})

    @override
    def score(self, prompt: MultimodalPrompt, *, vision_attention: Tensor) -> Tensor:
        return vision_attention
