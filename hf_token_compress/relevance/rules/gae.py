"""The paper's rule: generic attention explainability."""

from __future__ import annotations

from torch import Tensor

from ..attention_tap import AttentionLayer
from .base import PropagationRule, propagate


class GaeRule(PropagationRule):
    """R ← R + E_h[(A ⊙ ∂y/∂A)^+]·R from R = I; the row that predicts the token is read.

    The rule of arXiv 2506.01097: the self-attention rules (equations 5 and 6) of Chefer et al.
    2021. Only one row of R is wanted, so that r ← r + r·Ā from the top layer down gives it without
    the matrix.
    """

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """One factor of the product."""
        return propagate(relevance, layer, gradient)


class AbsoluteGaeRule(GaeRule):
    """The same with magnitudes: R ← R + E_h|A ⊙ ∂y/∂A|·R.

    An edge whose removal would raise the score matters as much as one whose removal would lower it:
    much of what decides an answer is evidence against the other answers.
    """

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """One factor of the product."""
        return propagate(relevance, layer, gradient, reduction="absolute")
