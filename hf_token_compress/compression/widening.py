"""Bring outputs of a compressed prompt to the width of the caller's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from ..rewrite import ordered_positions
from .labels import computes_loss
from .rewriting import CompressedInputs


def widened(states: Tensor, keep: Tensor, index: Tensor) -> Tensor:
    """Repeat the state of the nearest kept token to the left where a token was dropped.

    Args:
        states: float [B, K, D], of the compressed prompt.
        keep: bool [B, S], tokens of the caller's prompt that were kept.
        index: int64 [B, K], -1 where the compressed prompt is padded.

    Returns:
        float [B, S, D], zero before the first kept token.
    """
    count = keep.cumsum(dim=1)  # [B, S]
    columns = ordered_positions(index >= 0, "right", index.shape[1])  # [B, K]
    source = columns.gather(1, (count - 1).clamp(min=0)).to(states.device)  # [B, S]
    samples = torch.arange(len(states), device=states.device)[:, None]
    wide = states[samples, source]  # [B, S, D]
    return wide.masked_fill((count == 0).to(states.device)[..., None], 0)


def widened_output(output: Any, compressed: CompressedInputs, *, has_head: bool) -> Any:
    """The output of a stock forward, with states of the caller's width where it needs them.

    Args:
        output: Of the stock forward.
        compressed: The compressed prompt.
        has_head: Whether the model has a language model head. Its logits are widened where a loss
            is computed; hidden states of a model without one always.
    """
    keep, index = compressed.keep, compressed.index
    if index is None:
        return output
    if not has_head:
        return _with_wide_states(output, keep, index)
    if not computes_loss(compressed.inputs):
        return output
    if not isinstance(output, ModelOutput):
        # The loss comes first in a tuple.
        place = 0 if compressed.inputs.get("labels") is None else 1
        logits = widened(output[place], keep, index)
        return (*output[:place], logits, *output[place + 1 :])
    if output.get("logits") is not None:
        output["logits"] = widened(output["logits"], keep, index)
    return output


def _with_wide_states(output: Any, keep: Tensor, index: Tensor) -> Any:
    """The output of a model without a head, its hidden states of every layer widened."""

    def wide(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim == 3 and value.shape[:2] == index.shape:
            return widened(value, keep, index)
        # Hidden states of all layers; attention maps have four axes.
        return tuple(map(wide, value)) if type(value) is tuple else value

    if not isinstance(output, ModelOutput):
        return wide(output)
    for name in ("last_hidden_state", "hidden_states"):
        if output.get(name) is not None:
            output[name] = wide(output[name])
    return output
