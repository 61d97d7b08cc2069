"""MiniMax M3: its sparse layers use position ids as indices into the sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from .family import ModelFamily


class MiniMaxM3Family(ModelFamily):
    """`MiniMaxM3SparseForConditionalGeneration` and `MiniMaxM3VLModel` without sparse layers."""

    @override
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        if "minimax_m3_sparse" in model.config.text_config.layer_types:
            # A block of keys would be chosen by a position that is beyond the last key.
            raise ValueError(
                f"{type(model).__name__} has sparse layers (minimax_m3_sparse in layer_types), "
                "which find keys by position ids, so its prompts cannot be shortened: use the "
                "model uncompressed."
            )
        return super().position_ids(model, inputs, attention_mask)
