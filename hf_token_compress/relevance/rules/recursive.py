"""Explain, leave the least relevant visual tokens out, and explain again on the shorter prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay import Replay
from .base import Rule


class RecursiveRule(Rule):
    """A rule that is applied again after each removal.

    A token's score tells how long it stayed: between 1/f and 1/g for a token that was there when a
    share f of the tokens was left and gone when a share g was, by its relevance in between. So
    scores fall off as one over the rank, and those of the tokens that stay to the end go beyond.

    Args:
        rule: The rule.
        drop: Share of the visual tokens left that each round drops, in (0, 1).
        until: Share of all visual tokens at which to stop, in (0, 1).
    """

    def __init__(self, rule: Rule, drop: float = 0.2, until: float = 0.1) -> None:
        self.rule = rule
        self.drop = drop
        self.until = until

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """See `Rule.explain`."""
        columns = replay.visual_columns
        keep = keep.clone()
        result = torch.zeros(len(targets), *keep.shape, device=keep.device)
        running = [True] * len(columns)
        while any(running):
            found = self.rule.explain(replay, targets, keep)  # [G, B, S]
            total = found.sum(0)  # [B, S]
            for row, own in enumerate(columns):
                if not running[row]:
                    continue
                left = own[keep[row, own]]
                order = total[row, left].argsort(stable=True)
                last = len(left) - max(1, round(self.until * len(own)))
                count = min(max(1, int(self.drop * len(left))), last)
                share = len(left) / len(own)
                if count <= 0:
                    ranked = left[order]
                    running[row] = False
                else:
                    ranked = left[order[:count]]
                    keep[row, ranked] = False
                after = (len(left) - max(count, 0)) / len(own)
                result[:, row, ranked] = _between(found[:, row, ranked], 1 / share, 1 / after)
        return result


def _between(scores: Tensor, low: float, high: float) -> Tensor:
    if high == low:
        high = 2 * low
    spread = scores.amax(-1, keepdim=True) - scores.amin(-1, keepdim=True)
    shares = (scores - scores.amin(-1, keepdim=True)) / spread.clamp(min=1e-30)
    return low + (high - low) * shares.clamp(0, 1)
