"""Every n-th token over the grid: the content-free baseline."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer


class UniformScorer(Scorer):
    """Spread what is kept evenly over the grid of each image or video, whatever it shows.

    Tokens are ranked as in ordered dithering: a quarter of the tokens is every second row and
    column, a sixteenth every fourth, and so on. Frames of a video are thinned last. Tokens of a
    prompt that lie on no grid are ranked as one line, in the order in which they come: a half is
    every second, a quarter every fourth.
    """

    @override
    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        scores = torch.zeros(prompt.visual_mask.shape)  # [B, S]
        off_grid = prompt.visual_mask.cpu().clone()  # [B, S]
        for row, visuals in enumerate(prompt.visuals):
            for visual in visuals:
                for grid in visual.grids:
                    columns = visual.positions.cpu()[grid.index.flatten()]
                    scores[row, columns] = -dither_rank(*grid.shape)
                    off_grid[row, columns] = False
            if count := int(off_grid[row].sum()):
                # In the middle of their shares, so that a lone one is not kept at every ratio.
                scores[row, off_grid[row]] = -(dither_rank(1, 1, count) + 0.5 / count)
        return scores.to(prompt.visual_mask.device)


def dither_rank(frames: int, rows: int, columns: int) -> Tensor:
    """Share of the grid's tokens that come before each token in ordered dithering.

    Returns:
        float32 [frames * rows * columns] in [0, 1), row-major.
    """
    frame, row, column = torch.meshgrid(
        torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    rank = torch.zeros(frames, rows, columns, dtype=torch.int64)
    bits = max(frames, rows, columns).bit_length()
    for bit in range(bits):
        f, r, c = (frame >> bit) & 1, (row >> bit) & 1, (column >> bit) & 1
        # The lowest bits decide first, so that neighbours are far apart in rank.
        rank = rank * 8 + (r ^ c) * 4 + r * 2 + f
    order = rank.flatten().argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place.float() / len(order)
