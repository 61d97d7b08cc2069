"""Position ids of the policy "grid", one run of visual tokens after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def moved_up(positions: Tensor, keep: Tensor, visuals: Sequence[Tensor]) -> Tensor:
    """Position ids of one prompt as the policy moves them.

    Args:
        positions: int64 [A, S] or [S] of the whole prompt.
        keep: bool or 0/1 [S], the tokens that stay.
        visuals: Positions of the visual tokens of each image and video, int64 [N].
    """
    moved = positions.clone()
    for run in runs(visuals):
        grid = positions[..., run].view(-1, len(run))[-2:]  # height and width, or the only axis
        kept = grid[:, keep[run].bool()]
        end = int(kept.max()) + 1 if kept.numel() else int(grid.min())
        moved[..., run[-1] + 1 :] -= int(grid.max()) + 1 - end
    return moved


def runs(visuals: Sequence[Tensor]) -> list[list[int]]:
    """Visual tokens of one image or video without text between them."""
    found: list[list[int]] = []
    for visual in visuals:
        before = None
        for position in visual.tolist():
            if before is None or position != before + 1:
                found.append([])
            found[-1].append(position)
            before = position
    return found
