"""PaliGemma: positions count from 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from .family import ModelFamily


class PaliGemmaFamily(ModelFamily):
    """`PaliGemmaForConditionalGeneration` and `PaliGemmaModel`."""

    @override
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        positions = super().position_ids(model, inputs, attention_mask)
        return positions if inputs.get("position_ids") is not None else positions + 1
