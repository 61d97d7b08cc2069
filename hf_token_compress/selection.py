"""Which visual tokens stay: pure tensor functions from scores to keep masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .config import TokenCompressionConfig
from .prompt import VisualSpan

Visuals = Iterable[Sequence[VisualSpan]]
"""For each prompt of a batch, its images and videos in order of appearance."""


def may_drop_tokens(visuals: Visuals, configs: Sequence[TokenCompressionConfig]) -> bool:
    """Whether a prompt may lose visual tokens, so that scores are needed."""
    for spans, config in zip(visuals, configs, strict=True):
        count = sum(len(span.positions) for span in spans)
        if visual_token_budget(count, config) < count or config.top_p is not None:
            return True
    return False


def select_tokens(
    attention_mask: Tensor,
    visuals: Visuals,
    scores: Tensor | None,
    configs: Sequence[TokenCompressionConfig],
) -> Tensor:
    """Keep all text, and the best visual tokens of each prompt within its budget.

    Args:
        attention_mask: bool [B, S], False on padding.
        visuals: The images and videos of each prompt.
        scores: float [B, S]; only those of visual tokens are read. None keeps everything.
        configs: The budgets and minimums of each prompt.

    Returns:
        bool [B, S], True on the tokens to keep.

    Raises:
        ValueError: A score is negative, but `top_p` is set.
    """
    keep = attention_mask.clone()
    if scores is None:
        return keep
    for sample, (spans, config) in enumerate(zip(visuals, configs, strict=True)):
        lengths = [len(span.positions) for span in spans]
        if not spans or sum(lengths) < config.min_visual_tokens:
            continue
        positions = torch.cat([span.positions for span in spans])  # [N]
        visual_scores = scores[sample, positions]  # [N]
        budget = visual_token_budget(sum(lengths), config)
        if config.top_p is not None:
            budget = min(budget, top_p_budget(visual_scores, config.top_p))
        kept = select_visual_tokens(
            visual_scores,
            lengths,
            budget,
            min_tokens_per_visual=config.min_tokens_per_visual,
            frames=_video_frames(spans),
            min_tokens_per_frame=config.min_tokens_per_frame,
        )
        # The last token stays, whatever it is: the next token is predicted from it.
        last = attention_mask[sample].nonzero()[-1]
        keep[sample, positions] = kept | (positions == last)
    return keep


def visual_token_budget(count: int, config: TokenCompressionConfig) -> int:
    """How many of its `count` visual tokens a prompt may keep, before `config.top_p`."""
    if count < config.min_visual_tokens:
        return count
    budget = max(1, round(config.retention_ratio * count))
    if config.max_visual_tokens is not None:
        budget = min(budget, config.max_visual_tokens)
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


def _video_frames(visuals: Sequence[VisualSpan]) -> list[Tensor]:
    """The visual tokens of each video frame of a prompt, int64 [n] each, as indices into [N]."""
    frames: list[Tensor] = []
    start = 0
    for span in visuals:
        if span.modality == "video":
            by_frame = zip(*(grid.index + start for grid in span.grids), strict=True)
            frames += [torch.cat([part.flatten() for part in parts]) for parts in by_frame]
        start += len(span.positions)
    return frames
