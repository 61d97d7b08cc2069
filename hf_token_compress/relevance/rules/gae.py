"""Generic attention explainability, the relevance rule of the paper."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from ..attention_tap import AttentionLayer
from .base import PropagationRule


class GaeRule(PropagationRule):
    """R ← R + E_h[(A ⊙ ∂y/∂A)^+]·R from R = I, read at the query that predicts the answer token.

    Equations 5 and 6 of Chefer et al. 2021 (arXiv 2103.15679) for self-attention, as used by
    arXiv 2506.01097. Only one query's relevance is wanted: r ← r + r·E_h[(A ⊙ ∂y/∂A)^+] from the
    top layer down gives it without the matrix R.
    """

    reduction: ClassVar[str] = "positive"

    @override
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        return layer.propagate(relevance, gradient, reduction=self.reduction)


class AbsoluteGaeRule(GaeRule):
    """R ← R + E_h|A ⊙ ∂y/∂A|·R: `GaeRule` with magnitudes in place of positive parts.

    Evidence against the other answers decides an answer too, so an edge that lowers the score
    counts as much as one that raises it.
    """

    reduction = "absolute"


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
        return layer.propagate(relevance, gradient, normalize_per_query=True) / 2
