"""Gradient times input, at the visual features."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay import ReplayPass, Target, check_target
from .base import PassRule


class GradientInputRule(PassRule):
    """|⟨e_i, ∂y/∂e_i⟩| for the visual feature e_i of every token.

    Args:
        target: "logit", "log_probability" or "margin", as for `PropagationRule`.

    Raises:
        ValueError: There is no such target.
    """

    def __init__(self, target: Target = "logit") -> None:
        self.target = check_target(target)

    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """See `PassRule.explain_pass`."""
        found = torch.zeros(len(targets), *replay.visual_mask.shape, device=targets.device)
        scores = replay.target_scores(targets, self.target)
        for number in range(len(targets)):
            last = number == len(targets) - 1
            gradients = torch.autograd.grad(
                scores[number], replay.leaves, retain_graph=not last, allow_unused=True
            )
            for leaf, gradient, (row, columns) in zip(
                replay.leaves, gradients, replay.leaf_places, strict=True
            ):
                if gradient is None:
                    continue
                product = (leaf * gradient).sum(-1).abs().float().detach()
                here = columns >= 0
                found[number, row, columns[here]] = product[here]
        return found
