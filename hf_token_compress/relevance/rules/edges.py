"""The first-order effect of every attention edge, summed without propagation.

The gradient at a query of one layer already contains everything that happens to that query in the
layers above. Summing over queries and layers therefore counts every edge once, at the first-order
estimate of the effect of removing it, as in attribution patching (arXiv 2310.10348).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from ..attention_tap import AttentionLayer
from ..replay import ReplayPass
from .base import PropagationRule


class _EdgeSums(PropagationRule):
    reduction: ClassVar[str]

    @override
    def start(self, predicting: Tensor, replay: ReplayPass) -> Tensor:
        text = replay.attention_mask & ~replay.visual_mask  # [B, K]
        return text.to(predicting).expand(predicting.shape)

    @override
    def initial_relevance(self, start: Tensor) -> Tensor:
        return torch.zeros_like(start)

    @override
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        return relevance + layer.propagate(
            start, gradient, reduction=self.reduction, residual=False
        )


class PositiveEdgesRule(_EdgeSums):
    """Σ over layers and text queries of E_h[(A ⊙ ∂y/∂A)^+]."""

    reduction = "positive"


class AbsoluteEdgesRule(_EdgeSums):
    """Σ over layers and text queries of E_h|A ⊙ ∂y/∂A|, with evidence against the answer."""

    reduction = "absolute"


class NetEdgesRule(_EdgeSums):
    """|Σ over layers, text queries and heads of A ⊙ ∂y/∂A|: the net effect of hiding a token.

    Edges of opposite signs cancel out, for each target on its own.
    """

    reduction = "signed"

    @override
    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        return super().explain_pass(replay, targets).abs()
