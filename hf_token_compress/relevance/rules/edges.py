"""The first-order effect of every attention edge, without propagation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..attention_tap import AttentionLayer
from ..replay import ReplayPass
from .base import PropagationRule, propagate


class _EdgeSums(PropagationRule):
    reduction: ClassVar[str]

    def start(self, rows: Tensor, replay: ReplayPass) -> Tensor:
        """One on every row that is text."""
        text = replay.attention_mask & ~replay.visual_mask
        return text.to(rows).expand(rows.shape)

    def above_the_top(self, start: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(start)

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """Add what the layer's edges do."""
        edges = propagate(start, layer, gradient, reduction=self.reduction, residual=False)
        return relevance + edges


class PositiveEdgesRule(_EdgeSums):
    """Σ over layers and text rows of E_h[(A ⊙ ∂y/∂A)^+].

    The gradient at a row of a layer holds everything that happens to that row later: summing over
    rows and layers counts every edge once, at the first-order effect of its removal.
    """

    reduction = "positive"


class AbsoluteEdgesRule(_EdgeSums):
    """Σ over layers and text rows of E_h|A ⊙ ∂y/∂A|, with what speaks against the answer."""

    reduction = "absolute"


class NetEdgesRule(_EdgeSums):
    """|Σ over layers, text rows and heads of A ⊙ ∂y/∂A|: the net effect of hiding a token.

    What one edge adds and another takes away cancels out, for each target on its own.
    """

    reduction = "signed"

    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """See `PassRule.explain_pass`."""
        return super().explain_pass(replay, targets).abs()
