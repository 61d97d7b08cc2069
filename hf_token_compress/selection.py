"""Which visual tokens stay: pure tensor functions from scores and budgets to keep masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


def visual_token_budget(
    count: int,
    *,
    retention_ratio: float,
    min_visual_tokens: int = 0,
    max_visual_tokens: int | None = None,
) -> int:
    """How many of its `count` visual tokens a prompt may keep.

    Args:
        count: Visual tokens of the prompt.
        retention_ratio: Share to keep, in (0, 1], rounded to the nearest token, at least one.
        min_visual_tokens: A prompt with fewer visual tokens keeps all of them.
        max_visual_tokens: Upper limit on kept tokens.
    """
    if count < min_visual_tokens:
        return count
    budget = max(1, round(retention_ratio * count))
    if max_visual_tokens is not None:
        budget = min(budget, max_visual_tokens)
    return min(budget, count)


def top_p_budget(scores: Tensor, top_p: float) -> int:
    """The fewest tokens whose scores sum to at least the share `top_p` of the total.

    Args:
        scores: float [N], none negative. If all are zero, every token is needed.
        top_p: Share of the total, in (0, 1].

    Raises:
        ValueError: A score is negative, so a share of the total has no meaning.
    """
    if (scores < 0).any():
        raise ValueError(
            "top_p cannot use negative scores: choose a scorer whose scores are shares (such as "
            "'attention'), or leave top_p out."
        )
    # float64, so that rounding over many tokens does not miss a share of 1.0.
    cumulative = scores.double().sort(descending=True).values.cumsum(0)
    if len(cumulative) == 0 or cumulative[-1] == 0:
        return len(scores)
    reached = cumulative >= top_p * cumulative[-1]
    return int(reached.to(torch.int8).argmax()) + 1


def select_visual_tokens(
    scores: Tensor,
    visual_lengths: Sequence[int],
    budget: int,
    *,
    min_tokens_per_visual: int = 0,
    frames: Sequence[Tensor] = (),
    min_tokens_per_frame: int = 0,
) -> Tensor:
    """Keep the best-scored visual tokens of one prompt.

    Every image or video first keeps its own best `min_tokens_per_visual`, and every frame of a
    video its own best `min_tokens_per_frame`. The rest of the budget goes to the best remaining
    tokens. Between equal scores the earlier token wins.

    Args:
        scores: float [N], one score per visual token of the prompt, in order.
        visual_lengths: Visual tokens of each image or video; they sum to N.
        budget: Number of tokens to keep in all.
        min_tokens_per_visual: Tokens that every image or video keeps (all, if it has fewer), even
            if they exceed the budget.
        frames: int64 [n] for each frame of the videos, which of the N tokens lie on it.
        min_tokens_per_frame: Tokens that every frame keeps, in the same way.

    Returns:
        bool [N], True on the tokens to keep.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    order = torch.sort(scores, descending=True, stable=True).indices  # [N]
    starts = [0, *accumulate(visual_lengths)]
    visuals = [torch.arange(first, end) for first, end in pairwise(starts)]
    # First the minimum of each image, video and frame.
    for groups, floor in ((visuals, min_tokens_per_visual), (frames, min_tokens_per_frame)):
        for group in groups if floor > 0 else ():
            belongs = torch.zeros_like(keep)
            belongs[group.to(scores.device)] = True
            keep[order[belongs[order]][:floor]] = True
    # Then the best of the rest.
    rest = order[~keep[order]]
    keep[rest[: max(0, budget - int(keep.sum()))]] = True
    return keep
