"""What is known of a choice before the scores are: how many tokens stay, and some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .budgets import top_p_budget
from .floors import best_of_each_group
from .structure import spread_evenly

Floor = tuple[Tensor, int]
"""int64 [N], which group each token belongs to, negative for none; and how many tokens every group
keeps, or all if it has fewer."""


@dataclass(frozen=True)
class SelectionPlan:
    """How the N visual tokens of one prompt are chosen; its tensors are on the CPU.

    Attributes:
        first: bool [N], structure tokens that come first, or all tokens if all are kept.
        floors: The minimum of images, videos and frames, without the tokens that come first.
        kept: How many tokens both keep.
        count: How many more the rule chooses.
    """

    first: Tensor
    floors: tuple[Floor, ...]
    kept: int
    count: int

    def __len__(self) -> int:
        return len(self.first)


def everything(length: int) -> SelectionPlan:
    """Keep all tokens."""
    return SelectionPlan(torch.ones(length, dtype=torch.bool), (), length, 0)


def make_plan(
    length: int,
    budget: int,
    *,
    floors: Sequence[Floor],
    structure: Tensor | None,
    structure_share: float,
    top_p: float | None,
    scores: Tensor | None,
) -> SelectionPlan:
    """Plan the choice of one prompt, as `select_visual_tokens` describes it.

    Args:
        length: N, its visual tokens.
        budget: Tokens to keep in all.
        floors: Minimums, where those of a later one hold whole groups of an earlier one.
        structure: int64 [n], ascending, which tokens are structure.
        structure_share: Largest share of the budget that goes to them first.
        top_p: Share of the sum of the scores, or None.
        scores: float [N] on the CPU; read for `top_p` alone.
    """
    # Any choice gives an only group its minimum.
    several = [(groups, floor) for groups, floor in floors if bool((groups != groups[0]).any())]
    least = least_kept_of_all(floors)
    needed = max(least, sum(least_kept(groups, floor) for groups, floor in several))
    limit = budget
    if top_p is not None:
        assert scores is not None
        budget = min(limit, top_p_budget(scores, top_p))
    first = torch.zeros(length, dtype=torch.bool)  # [N]
    # 1. Structure.
    most = max(0, min(int(structure_share * budget), budget - needed))
    if structure is not None and len(structure) > 0 and most > 0:
        first[spread_evenly(structure, most)] = True
        if top_p is not None:
            assert scores is not None
            budget = min(limit, top_p_budget(scores, top_p, first))
    # 2. The minimum of each image, video and frame, which structure does not count towards, but
    # what frames keep counts towards that of their video.
    own = tuple((groups.masked_fill(first, -1), floor) for groups, floor in several)
    kept = first
    # How many they are is the same for any scores.
    for groups, floor in own:
        kept = kept | best_of_each_group(torch.where(kept, 1.0, 0.0), groups, floor)
    # 3. The rule's choice of the rest.
    total = max(budget, least)
    if total >= length:
        return everything(length)
    count = int(kept.sum())
    return SelectionPlan(first, own, count, max(0, total - count))


def least_kept_of_all(floors: Sequence[Floor]) -> int:
    """Tokens that keep the largest of the minimums."""
    return max((least_kept(groups, floor) for groups, floor in floors), default=0)


def least_kept(groups: Tensor, floor: int) -> int:
    """Tokens that keep the minimum of every group."""
    _, sizes = groups[groups >= 0].unique(return_counts=True)
    return int(sizes.clamp(max=floor).sum())
