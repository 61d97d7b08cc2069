"""Attention rollout and last-layer attention: what attention says without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention_tap import AttentionLayer
from .base import PropagationRule, propagate


class RolloutRule(PropagationRule):
    """R ← ½·(I + E_h[A])·R (Abnar & Zuidema 2020), the same for every answer to a prompt."""

    uses_gradients = False

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """One factor of the product."""
        return propagate(relevance, layer, None, reduction="attention") / 2


class LastLayerAttentionRule(RolloutRule):
    """E_h[A] of the top layer, in the rows that predict the target."""

    def above_the_top(self, start: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(start)

    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """The top layer comes first; further layers change nothing."""
        if relevance.any():
            return relevance
        return propagate(start, layer, None, reduction="attention", residual=False)
