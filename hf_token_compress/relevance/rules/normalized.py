"""Generic attention explainability with normalized queries."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..attention_tap import AttentionLayer
from .base import PropagationRule


class NormalizedGaeRule(PropagationRule):
    """R ← ½·(I + N)·R, where N is E_h[(A ⊙ ∂y/∂A)^+] with each query's weights summing to one.

    A variant of `GaeRule`. The entries of (A ⊙ ∂y/∂A)^+ scale with the gradient, so `GaeRule` gives
    evidence that takes two hops the product of two small numbers. Here each query passes on as much
    relevance as it keeps, whatever the scale of its gradient.
    """

    @override
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        return layer.propagate(relevance, gradient, normalize_rows=True) / 2
