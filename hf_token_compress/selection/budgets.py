"""How many visual tokens a prompt keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..config import TokenCompressionConfig
from ..prompt import VisualSpan


def may_drop_tokens(
    visuals: Iterable[Sequence[VisualSpan]], configs: Sequence[TokenCompressionConfig]
) -> bool:
    """Whether a prompt may lose visual tokens, so that scores are needed.

    Args:
        visuals: For each prompt of a batch, its images and videos in order of appearance.
        configs: The setting of each prompt.
    """
    for spans, config in zip(visuals, configs, strict=True):
        count = sum(len(span.positions) for span in spans)
        if visual_token_budget(count, config) < count or config.top_p is not None:
            return True
    return False


def visual_token_budget(count: int, config: TokenCompressionConfig) -> int:
    """How many of its `count` visual tokens a prompt may keep, before `config.top_p`."""
    if count < config.min_visual_tokens:
        return count
    budget = max(1, round(config.retention_ratio * count))
    if config.max_visual_tokens is not None:
        budget = min(budget, config.max_visual_tokens)
    return min(budget, count)


def top_p_budget(scores: Tensor, top_p: float, first: Tensor | None = None) -> int:
    """The fewest tokens whose scores sum to at least the share `top_p` of the total.

    Args:
        scores: float [N], none negative. If all are zero, every token is needed.
        top_p: Share of the total, in (0, 1].
        first: bool [N], tokens that are kept whatever their scores, and count.

    Raises:
        ValueError: A score is negative, so a share of the total has no meaning.
    """
    if (scores < 0).any():
        raise ValueError(
            "top_p cannot use negative scores: choose a scorer whose scores are shares (such as "
            "'attention'), or leave top_p out."
        )
    ranked = scores if first is None else scores.masked_fill(first, torch.inf)
    order = ranked.sort(descending=True).indices  # [N]
    # float64, so that rounding over many tokens does not miss a share of 1.0.
    cumulative = scores[order].double().cumsum(0)
    if len(cumulative) == 0 or cumulative[-1] == 0:
        return len(scores)
    reached = cumulative >= top_p * cumulative[-1]
    budget = int(reached.to(torch.int8).argmax()) + 1
    return budget if first is None else max(budget, int(first.sum()))
