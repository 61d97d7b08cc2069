"""Explain, leave the least relevant visual tokens out, and explain again on the shorter prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import check_share
from ..replay import Replay
from .base import Rule
from .registry import DEFAULT_RULE, RuleSpec, as_rule


class RecursiveRule(Rule):
    """A rule that is applied again after each removal.

    A token's score tells how long it stayed: it lies between 1/f and 1/g for a token that was there
    when a share f of the visual tokens was left and gone when a share g was, by its relevance in
    that round. So scores fall off as one over the rank. The tokens that stay to the end, a share e,
    lie between 1/e and 2/e.

    All rounds together cost about 1/`drop` single explanations, because prompts shrink.

    Args:
        of: The rule, its name, or a mapping of its name under "rule" and its options.
        drop: Share of the visual tokens left that each round drops, in (0, 1].
        until: Share of all visual tokens at which to stop, in (0, 1].
    """

    def __init__(self, of: RuleSpec = DEFAULT_RULE, drop: float = 0.2, until: float = 0.1) -> None:
        check_share("drop", drop)
        check_share("until", until)
        self.rule = as_rule(of)
        self.drop = drop
        self.until = until

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """See `Rule.explain`."""
        keep = keep.clone()
        result = torch.zeros(len(targets), *keep.shape, device=keep.device)
        rounds = [
            self._counts(int(keep[row, own].sum())) for row, own in enumerate(replay.visual_columns)
        ]
        for number in range(max(map(len, rounds))):
            found = self.rule.explain(replay, targets, keep)  # [G, B, S]
            for row, own in enumerate(replay.visual_columns):
                if number >= len(rounds[row]):
                    continue
                left = own[keep[row, own]]
                count = rounds[row][number]
                order = found[:, row, left].sum(0).argsort(stable=True)
                out = left[order[:count]]
                low = len(own) / len(left)
                high = len(own) / (len(left) - count) if count < len(left) else 2 * low
                explained = targets[:, row].any(-1, keepdim=True)  # [G, 1]
                result[:, row, out] = _between(found[:, row, out], low, high) * explained
                if count < len(left):
                    keep[row, out] = False
        return result

    def _counts(self, total: int) -> list[int]:
        """How many tokens each round takes; the last takes all that are left."""
        counts, left = [], total
        while left > max(1, round(self.until * total)):
            counts.append(max(1, min(int(self.drop * left), left - round(self.until * total))))
            left -= counts[-1]
        return [*counts, left]


def _between(scores: Tensor, low: float, high: float) -> Tensor:
    """Scores [G, n] moved into [low, high], the order of each row kept."""
    least, most = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    shares = torch.where(most > least, (scores - least) / (most - least), 0.5)
    return low + (high - low) * shares
