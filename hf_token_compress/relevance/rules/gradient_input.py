"""Gradient times input, at the visual features."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..replay import ReplayPass
from .base import PassRule


class GradientInputRule(PassRule):
    """|⟨e_i, ∂y/∂e_i⟩| for the feature e_i of visual token i.

    Gradient times input of Shrikumar et al. 2016 (arXiv 1605.01713), summed over the feature.

    Args:
        target: "logit", "log_probability" or "margin", as for `PassRule`.
    """

    @override
    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        shape = len(targets), *replay.visual_mask.shape
        found = torch.zeros(shape, dtype=torch.float32, device=targets.device)
        scores = replay.target_scores(targets, self.target)  # [G]
        for number in range(len(targets)):
            # One backward pass per target.
            last = number == len(targets) - 1
            gradients = torch.autograd.grad(
                scores[number], replay.leaves, retain_graph=not last, allow_unused=True
            )
            # Each image or video has its own leaf; tokens that were removed have position -1.
            for leaf, gradient, (sample, positions) in zip(
                replay.leaves, gradients, replay.leaf_positions, strict=True
            ):
                if gradient is None:
                    continue
                product = (leaf * gradient).sum(-1).abs().float().detach()  # [n]
                present = positions >= 0
                found[number, sample, positions[present]] = product[present]
        return found
