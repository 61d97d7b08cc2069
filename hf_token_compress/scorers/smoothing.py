"""Scores averaged with those of the tokens around them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

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
    result = scores.clone()
    for sample, visuals in enumerate(prompt.visuals):
        for visual in visuals:
            for grid in visual.grids:
                cells = visual.positions[grid.index.to(visual.positions.device)].to(scores.device)
                own = scores[sample, cells]  # [frames, rows, columns]
                around = avg_pool2d(own, 3, stride=1, padding=1, count_include_pad=False)
                result[sample, cells] = (own + around) / 2
    return result
