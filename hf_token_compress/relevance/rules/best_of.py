"""Several rules; for each prompt the one whose kept tokens preserve the answer best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ...checks import check_share
from ..replay import Replay
from .base import Rule
from .registry import RuleSpec, as_rule


class BestOfRule(Rule):
    """The scores of the rule whose best tokens leave the answer's log-probability highest.

    Relevance only estimates the effect of a removal, and trying one removal is cheap.

    Args:
        rules: Candidates, at least one: names, or mappings of a name under "rule" and its options.
        retention_ratio: Share of the visual tokens to keep in the comparison, in (0, 1].

    Raises:
        ValueError: There are no candidates, a candidate does not exist, or the ratio is out of
            range.
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

    @override
    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        best: Tensor | None = None
        shape, lowest = (len(keep),), float("-inf")
        highest = torch.full(shape, lowest, dtype=torch.float32, device=keep.device)  # [B]
        for rule in self.rules:
            found = rule.explain(replay, targets, keep)  # [G, B, S]
            # Keep the best tokens by the sum over targets.
            total = found.sum(0).masked_fill(~keep, float("-inf"))  # [B, S]
            scores = [total[sample, own] for sample, own in enumerate(replay.visual_positions)]
            kept = replay.keep_best(scores, self.retention_ratio) & keep  # [B, S]
            # Compare the answer's log-probability, for each prompt on its own.
            likely, _ = replay.forward_pass(kept).answer_log_probabilities()  # [B, T]
            likely = likely.sum(1)  # [B]
            better = likely > highest
            highest = torch.where(better, likely, highest)
            best = found if best is None else torch.where(better[:, None], found, best)
        assert best is not None
        return best
