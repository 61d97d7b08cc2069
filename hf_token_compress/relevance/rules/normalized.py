"""The paper's rule with every row of every layer's map scaled to one."""

from __future__ import annotations

from torch import Tensor

from ..attention_tap import AttentionLayer
from .base import PropagationRule, propagate


class NormalizedGaeRule(PropagationRule):
    """R ← ½·(I + N)·R, with N the rows of E_h[(A ⊙ ∂y/∂A)^+] divided by their sums.

    Entries of (A ⊙ ∂y/∂A)^+ have the scale of the gradient, so that evidence which reached the
    answer in two hops is the product of two small numbers in the plain rule. Here a row hands on as
    much relevance as it keeps, whatever its gradient's scale.
    """

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """One factor of the product."""
        return propagate(relevance, layer, gradient, normalize_per_query=True) / 2
