"""Several rules; for each prompt the one whose kept tokens preserve the answer best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...checks import check_share
from ..replay import Replay
from .base import Rule
from .registry import RuleSpec, as_rule


class BestOfRule(Rule):
    """The scores of the rule whose kept set leaves the answer's log-probability highest.

    Relevance is a guess at what removal does; removal itself is cheap to try.

    Args:
        rules: Candidates, at least one: names, or mappings of a name under "rule" and its options.
        retention_ratio: Share of the visual tokens that is kept for the comparison, in (0, 1].
    """

    def __init__(
        self,
        rules: Sequence[RuleSpec] = ("edges_absolute", "gae_absolute", "gae"),
        retention_ratio: float = 0.25,
    ) -> None:
        if not rules:
            raise ValueError("best_of needs at least one rule to choose from.")
        check_share("retention_ratio", retention_ratio)
        self.rules = [as_rule(rule) for rule in rules]
        self.retention_ratio = retention_ratio

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """See `Rule.explain`."""
        best: Tensor | None = None
        highest = torch.full((len(keep),), float("-inf"), device=keep.device)
        for rule in self.rules:
            found = rule.explain(replay, targets, keep)  # [G, B, S]
            total = found.sum(0).masked_fill(~keep, float("-inf"))
            scores = [total[row, own] for row, own in enumerate(replay.visual_columns)]
            kept = replay.keep_best(scores, self.retention_ratio) & keep
            likely, _ = replay.forward_pass(kept).answer_log_probabilities()
            likely = likely.sum(1)  # [B]
            better = likely > highest
            highest = torch.where(better, likely, highest)
            best = found if best is None else torch.where(better[:, None], found, best)
        assert best is not None
        return best
