"""What the attention function of a stock model received, recorded in a copy of the model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

_NAME = "recording"


@dataclass(frozen=True)
class AttentionCall:
    """One layer's call of its attention function, and what came of it.

    Attributes:
        query: float [B, heads, S, head_dim].
        key: float [B, key_heads, S, head_dim].
        scaling: Factor on the attention logits.
        weights: float [B, heads, S, S], the attention map; None unless attention is eager.
    """

    query: Tensor
    key: Tensor
    scaling: float
    weights: Tensor | None


def record_attention(
    model: Any, inputs: Mapping[str, Any], attention: str
) -> dict[int, AttentionCall]:
    """Run a copy of a stock model, and return the attention calls of its decoder by layer.

    Args:
        model: A stock model with a `language_model`.
        inputs: Arguments of its forward.
        attention: The attention to run, "eager" or "sdpa".
    """
    model = copy.deepcopy(model)
    model.set_attn_implementation({"vision_config": model.config._attn_implementation})
    calls: dict[int, AttentionCall] = {}

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        own = sys.modules[type(module).__module__]
        stock = AttentionInterface().get(attention, getattr(own, "eager_attention_forward", None))
        output, weights = stock(module, query, key, value, attention_mask, **options)
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        calls[module.layer_idx] = AttentionCall(query, key, scaling, weights)
        return output, weights

    with registered(attend, attention), torch.no_grad():
        for config in {id(m.config): m.config for m in decoder_modules(model)}.values():
            config._attn_implementation = _NAME
        model(**inputs, use_cache=False)
    return calls


def decoder_modules(model: Any) -> list[Any]:
    """The modules of the language model that hold a configuration."""
    return [m for m in model.base_model.language_model.modules() if hasattr(m, "config")]


@contextmanager
def registered(attend: Any, attention: str) -> Iterator[None]:
    """An attention function with the masks of another one, inside the `with` block."""
    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, AttentionMaskInterface()[attention])
    try:
        yield
    finally:
        del AttentionInterface._global_mapping[_NAME]
        del AttentionMaskInterface._global_mapping[_NAME]
