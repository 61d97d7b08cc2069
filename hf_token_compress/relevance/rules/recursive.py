"""Explain, remove the least relevant visual tokens, and explain the shorter prompt again."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ...checks import check_share
from ..replay import Replay
from .base import Rule
from .registry import DEFAULT_RULE, RuleSpec, as_rule


class RecursiveRule(Rule):
    """A rule that is applied again after each removal.

    Recursive elimination of Guyon et al. 2002 ("Gene selection for cancer classification using
    support vector machines"), with a relevance rule in place of the weights of a classifier.

    A token's score shows how long it stayed. A token that was there when a share f of the visual
    tokens was left, and gone at a share g, scores between 1/f and 1/g, in order of its relevance in
    that round. Scores therefore fall off as one over the rank. Tokens that stay to the end, a share
    e, score between 1/e and 2/e.

    All rounds together cost about 1/`drop` single explanations, because prompts shrink.

    Args:
        of: The rule, its name, or a mapping of its name under "rule" and its options.
        drop: Share of the remaining visual tokens to remove in each round, in (0, 1].
        until: Share of all visual tokens at which to stop, in (0, 1].

    Raises:
        TypeError, ValueError: The rule does not exist, or a share is out of range.
    """

    def __init__(self, of: RuleSpec = DEFAULT_RULE, drop: float = 0.2, until: float = 0.1) -> None:
        check_share("drop", drop)
        check_share("until", until)
        self.rule = as_rule(of)
        self.drop = drop
        self.until = until

    @override
    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        keep = keep.clone()
        result = torch.zeros(len(targets), *keep.shape, dtype=torch.float32, device=keep.device)
        # Plan how many tokens of each prompt every round removes.
        rounds = [
            self._removal_counts(int(keep[sample, own].sum()))
            for sample, own in enumerate(replay.visual_positions)
        ]
        for number in range(max(map(len, rounds))):
            found = self.rule.explain(replay, targets, keep)  # [G, B, S]
            for sample, own in enumerate(replay.visual_positions):
                if number >= len(rounds[sample]):
                    continue
                # Pick the least relevant tokens by the sum over targets.
                left = own[keep[sample, own]]
                count = rounds[sample][number]
                order = found[:, sample, left].sum(0).argsort(stable=True)
                removed = left[order[:count]]
                # Score them between the inverse shares before and after this round.
                low = len(own) / len(left)
                high = len(own) / (len(left) - count) if count < len(left) else 2 * low
                explained = targets[:, sample].any(-1, keepdim=True)  # [G, 1]
                scores = found[:, sample, removed]  # [G, count]
                least, most = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)  # [G, 1]
                shares = torch.where(most > least, (scores - least) / (most - least), 0.5)
                result[:, sample, removed] = (low + (high - low) * shares) * explained
                if count < len(left):
                    keep[sample, removed] = False
        return result

    def _removal_counts(self, total: int) -> list[int]:
        """How many tokens each round removes; the last round takes all that are left."""
        counts, left = [], total
        while left > max(1, round(self.until * total)):
            counts.append(max(1, min(int(self.drop * left), left - round(self.until * total))))
            left -= counts[-1]
        return [*counts, left]
