"""Tokens that only separate others, such as the newline token after each row of an image.

They hold little content, but tell the language model where rows end. They hardly draw attention,
so no score would keep them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prompt import VisualSpan


def structure_tokens(visuals: Sequence[VisualSpan]) -> Tensor:
    """The tokens of a prompt that lie on no grid of their image or video.

    Where an image has no grid at all, its places are unknown, and no token counts as structure.

    Returns:
        int64 [n] on the CPU, ascending, as indices into the visual tokens of the prompt.
    """
    found = [torch.empty(0, dtype=torch.long)]
    start = 0
    for span in visuals:
        count = len(span.positions)
        on_grids = sum(grid.index.numel() for grid in span.grids)
        if span.grids and on_grids < count:
            off_grid = torch.ones(count, dtype=torch.bool)
            for grid in span.grids:
                off_grid[grid.index] = False
            found.append(off_grid.nonzero().flatten() + start)
        start += count
    return torch.cat(found)


def spread_evenly(tokens: Tensor, most: int) -> Tensor:
    """At most this many of the tokens, int64 [n], evenly spaced in their order.

    Over several images, each keeps them in proportion.
    """
    count = len(tokens)
    if count <= most:
        return tokens
    # The middle of each of `most` stretches of equal length.
    return tokens[(2 * torch.arange(most) + 1) * count // (2 * max(most, 1))]
