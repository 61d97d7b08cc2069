"""Scores averaged with those of the tokens around them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ..device_copy import to_device
from ..prompt import MultimodalPrompt


def smoothed(scores: Tensor, prompt: MultimodalPrompt) -> Tensor:
    """Average the score of each token half and half with the mean over its 3 x 3 cells.

    Frames are apart, cells beyond the edge of a grid do not count, and tokens on no grid keep their
    scores.

    Args:
        scores: float [B, S].
        prompt: Where the grids are.

    Returns:
        float [B, S].
    """
    # On the host: the places of all cells in the B * S tokens, frame by frame on one canvas.
    length = scores.shape[1]
    grids = [
        sample * length + visual.positions.cpu()[grid.index]
        for sample, visuals in enumerate(prompt.visuals)
        for visual in visuals
        for grid in visual.grids
    ]  # [frames, rows, columns] each
    if not grids:
        return scores
    rows, columns = (max(grid.shape[axis] for grid in grids) for axis in (1, 2))
    padded = [
        pad(grid, (0, columns - grid.shape[2], 0, rows - grid.shape[1]), value=-1) for grid in grids
    ]
    places = torch.cat(padded)  # [frames, rows, columns]
    inside = places >= 0
    around = avg_pool2d(inside.float(), 3, stride=1, padding=1, divisor_override=1).clamp(min=1)
    covered = inside.flatten().nonzero().flatten()  # [cells]
    parts = places.clamp(min=0), inside.float(), around, covered, places.flatten()[covered]
    whole = len(covered) == places.numel()
    places, inside, around, covered, targets = to_device(parts, scores.device)
    # On the device.
    flat = scores.flatten()  # [B * S]
    own = flat[places] if whole else flat[places] * inside
    mean = avg_pool2d(own, 3, stride=1, padding=1, divisor_override=1) / around
    values = ((own + mean) / 2).flatten()  # [frames * rows * columns]
    return flat.index_copy(0, targets, values if whole else values[covered]).view_as(scores)
