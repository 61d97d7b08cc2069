"""What families share whose language model is an ordinary decoder with positions on one axis."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ..scoring_layer import ScoringLayer
from .family import ModelFamily


class TextDecoderFamily(ModelFamily):
    """A family whose visual tokens take positions as words do."""

    @abstractmethod
    def decoder(self, model: Any) -> Any:
        """The language model, without its head."""

    @override
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        given: Tensor | None = inputs.get("position_ids")
        if given is not None:
            one_row_for_all = given.shape == (1, attention_mask.shape[1])
            return given.expand(attention_mask.shape) if one_row_for_all else given
        # The stock forward counts columns, padding too.
        columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        return columns.expand(attention_mask.shape)

    @override
    def generation_position_ids(self, attention_mask: Tensor) -> Tensor:
        tokens = attention_mask.long()
        return (tokens.cumsum(-1) - 1).masked_fill(tokens == 0, 0)

    @override
    def scoring_layer(self, model: Any, depth: int = 0) -> ScoringLayer:
        decoder = self.decoder(model)
        return decoder_layer(decoder, decoder.rotary_emb, depth)

    @override
    def structure_ids(self, model: Any) -> set[int]:
        return set()


def decoder_layer(
    decoder: Any, rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], depth: int
) -> ScoringLayer:
    """Query and key path of one layer of a decoder of Transformers.

    Args:
        decoder: The language model, without its head.
        rotary: As in `ScoringLayer`.
        depth: Which of its layers.
    """
    layer = decoder.layers[depth]
    attention = layer.self_attn
    return ScoringLayer(
        input_norm=layer.input_layernorm,
        query_projection=attention.q_proj,
        key_projection=attention.k_proj,
        rotary=rotary,
        head_dim=attention.head_dim,
        scaling=attention.scaling,
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        sliding_window=getattr(attention, "sliding_window", None),
    )
