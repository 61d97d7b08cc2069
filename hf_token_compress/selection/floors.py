"""The minimum that every image, video and frame keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prompt import VisualSpan


def groups_of_visuals(lengths: Sequence[int]) -> Tensor:
    """Which image or video each visual token of a prompt belongs to, int64 [N] on the CPU."""
    return torch.repeat_interleave(torch.tensor(lengths, dtype=torch.long))


def groups_of_frames(visuals: Sequence[VisualSpan]) -> Tensor:
    """Which frame of its videos each visual token lies on, int64 [N] on the CPU; -1 for none."""
    groups = torch.full((sum(len(span.positions) for span in visuals),), -1)
    start = frames = 0
    for span in visuals:
        if span.modality == "video":
            for grid in span.grids:
                numbers = torch.arange(frames, frames + len(grid.index))
                groups[grid.index + start] = numbers[:, None, None]  # [frames, rows, columns]
            frames = int(groups.max()) + 1
        start += len(span.positions)
    return groups


def best_of_each_group(scores: Tensor, groups: Tensor, count: int | Tensor) -> Tensor:
    """Mark the `count` best tokens of each group, or all, if it has fewer.

    Args:
        scores: float [..., N]. Between equal scores the earlier token wins.
        groups: int64 [..., N], the group of each token in its prompt; negative for none.
        count: Tokens of each group, or int64 [..., 1].

    Returns:
        bool [..., N].
    """
    # Group by group, and the best of a group first.
    order = torch.sort(scores, descending=True, stable=True).indices  # [..., N]
    by_group = torch.sort(groups.gather(-1, order), stable=True)
    order = order.gather(-1, by_group.indices)
    sorted_groups = by_group.values
    begins = torch.searchsorted(sorted_groups, sorted_groups)  # [..., N], of each token's group
    places = torch.arange(scores.shape[-1], device=scores.device) - begins
    is_best = (places < count) & (sorted_groups >= 0)
    return torch.zeros_like(is_best).scatter_(-1, order, is_best)
