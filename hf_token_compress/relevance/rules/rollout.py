"""Rules that read attention without gradients: rollout, and the top layer alone."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..attention_tap import AttentionLayer
from .base import PropagationRule


class RolloutRule(PropagationRule):
    """R ← ½·(I + E_h[A])·R: attention rollout, which is the same for every answer to a prompt.

    Equation 1 of Abnar and Zuidema 2020 (arXiv 2005.00928).
    """

    uses_gradients = False

    @override
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        return layer.propagate(relevance, None, reduction="attention") / 2


class LastLayerAttentionRule(RolloutRule):
    """E_h[A] of the top layer, at the queries that predict the target."""

    @override
    def initial_relevance(self, start: Tensor) -> Tensor:
        return torch.zeros_like(start)

    @override
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        # The top layer comes first, and the layers below it change nothing.
        if relevance.any():
            return relevance
        return layer.propagate(start, None, reduction="attention", residual=False)
