"""HunYuanVL: a newline token after every row, one token before an image and one after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import Modality, TokenGrid, VisualLayout
from .family import ModelFamily, Size


class HunYuanVLFamily(ModelFamily):
    """`HunYuanVLForConditionalGeneration` and `HunYuanVLModel`."""

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        merge = config.vision_config.spatial_merge_size
        return [_with_newlines(height // merge, width // merge) for _, height, width in sizes]

    @override
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        position_ids = super().position_ids(model, inputs, attention_mask)
        axes = len(model.config.text_config.rope_parameters["mrope_section"])
        # The decoder takes its own axes only.
        return position_ids if position_ids.ndim == 2 else position_ids[-axes:]

    @override
    def text_order_axis(self, position_ids: Tensor) -> int | None:
        # The first of four axes counts the tokens, but it is rotary as the others are.
        return None


def _with_newlines(rows: int, columns: int) -> VisualLayout:
    cells = 1 + torch.arange(rows * (columns + 1)).view(1, rows, columns + 1)
    return VisualLayout(cells.numel() + 2, (TokenGrid(cells[..., :-1]),))
