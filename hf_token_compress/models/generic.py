"""Families of which nothing is known but what can be read off the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from typing_extensions import override

from ..prompt import Modality
from .family import ModelFamily, Size, merge_size


class GenericFamily(ModelFamily):
    """A model with `mm_encoder_outputs` that is neither built in nor registered.

    Its first compressed prompt is checked against the stock forward.
    """

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        if len(counts) > 1 and max(counts) == 1:
            # Each keeps at least one token, so that nothing would be dropped, without a word.
            raise ValueError(
                f"The vision part of {type(config).__name__} returns {len(counts)} {modality}s of "
                f"one token each: join those of one {modality} in `features` of a family of your "
                "own, and register it with register_family."
            )
        grids = inputs.get(f"{modality}_grid_thw")
        if grids is None or len(grids) != len(counts):
            return [(count,) for count in counts]
        merge = merge_size(config) or 1
        found = zip(torch.as_tensor(grids).tolist(), counts, strict=True)
        return [_size(tuple(grid), count, merge) for grid, count in found]


def _size(grid: Size, count: int, merge: int) -> Size:
    """The grid in patches if it counts the visual tokens, merged or not; else their number."""
    frames, height, width = grid
    if math.prod(grid) == count * merge**2:
        return grid
    if math.prod(grid) == count:
        return frames, height * merge, width * merge
    return (count,)
