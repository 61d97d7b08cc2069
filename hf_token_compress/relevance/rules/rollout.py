"""Attention rollout and last-layer attention: what attention says without gradients."""

from __future__ import annotations

from torch import Tensor

from ..attention_tap import AttentionLayer
from ..replay import ReplayPass
from .base import PropagationRule, propagate


class RolloutRule(PropagationRule):
    """R ← ½·(I + E_h[A])·R (Abnar & Zuidema 2020), the same for every answer to a prompt."""

    uses_gradients = False

    def start(self, rows: Tensor, replay: ReplayPass) -> Tensor:
        """The rows that predict the target."""
        return rows

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """One factor of the product."""
        return propagate(relevance, layer, None, reduction="attention") / 2


class LastLayerAttentionRule(RolloutRule):
    """E_h[A] of the top layer, in the rows that predict the target."""

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """The top layer comes first; further layers change nothing."""
        if relevance is not start:
            return relevance
        return propagate(start, layer, None, reduction="attention", residual=False)
