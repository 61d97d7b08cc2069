"""Evenly spread tokens: the baseline that ignores content and instruction."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..device_copy import to_device
from ..prompt import MultimodalPrompt
from .base import Scorer


class UniformScorer(Scorer):
    """Spread the kept tokens evenly over the grids of each image or video.

    Tokens are ranked by ordered dithering (Bayer, 1973): a quarter of the tokens is every second
    row and column, a sixteenth is every fourth row and column, and frames of a video are thinned
    last. Tokens on no grid are ranked as one line in the order of the prompt: a half is every
    second token, a quarter every fourth.
    """

    ranks_only = True

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        scores = torch.zeros(prompt.visual_mask.shape, dtype=torch.float32)  # [B, S]
        off_grid = prompt.on_host.visual.clone()  # [B, S]
        for sample, visuals in enumerate(prompt.visuals):
            for visual in visuals:
                for grid in visual.grids:
                    positions = visual.positions.cpu()[grid.index.flatten()]
                    scores[sample, positions] = -dither_rank(*grid.shape)
                    off_grid[sample, positions] = False
            if count := int(off_grid[sample].sum()):
                # Half a step more, so that a single token is not kept at every ratio.
                scores[sample, off_grid[sample]] = -(dither_rank(1, 1, count) + 0.5 / count)
        return to_device([scores], prompt.visual_mask.device)[0]


def dither_rank(frames: int, rows: int, columns: int) -> Tensor:
    """Share of the tokens of a grid that come before each token in ordered dithering.

    Returns:
        float32 [frames * rows * columns] in [0, 1), row-major.
    """
    frame, row, column = torch.meshgrid(
        torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij"
    )  # [frames, rows, columns] each
    # Interleave the bits of the coordinates. The lowest bits decide first, so that neighbours are
    # far apart in rank.
    rank = torch.zeros(frames, rows, columns, dtype=torch.int64)
    for bit in range(max(frames, rows, columns).bit_length()):
        f, r, c = (frame >> bit) & 1, (row >> bit) & 1, (column >> bit) & 1
        rank = rank * 8 + (r ^ c) * 4 + r * 2 + f
    # From the tokens in order of rank to the place of each token.
    order = rank.flatten().argsort(stable=True)  # [frames * rows * columns]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place.float() / len(order)
