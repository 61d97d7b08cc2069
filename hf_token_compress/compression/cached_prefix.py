"""Continue from the cache of a compressed prompt as if the prompt were whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils.generic import ModelOutput

_ATTRIBUTE = "compressed_prefix"
# The forward keyword that carries the cache: from Transformers 5.24 on, and before.
_CACHE_INPUTS = ("cache", "past_key_values")


@dataclass(frozen=True)
class CompressedPrefix:
    """What a cache remembers about the compressed prompt that filled it.

    Attributes:
        caller_length: S, length of the caller's prompt.
        attention_mask: int64 [B, K], of the rewritten prompt.
        padded: Whether the rewritten prompt has padding.
        next_position: int64 [A, B, 1] or [B, 1], position ids of the token after the prompt.
    """

    caller_length: int
    attention_mask: Tensor
    padded: bool
    next_position: Tensor


def remember_prefix(output: Any, prefix: CompressedPrefix) -> None:
    """Attach the prefix to the cache in a model output, if it has one."""
    for value in output.values() if isinstance(output, ModelOutput) else output:
        if isinstance(value, Cache):
            setattr(value, _ATTRIBUTE, prefix)


def recall_prefix(cache: Any) -> CompressedPrefix | None:
    """The prefix attached to a cache; None if it holds no compressed prompt."""
    return getattr(cache, _ATTRIBUTE, None)


def given_cache(inputs: Mapping[str, Any]) -> Any:
    """The cache among the inputs of a forward or of `generate`, or None."""
    found = (inputs.get(name) for name in _CACHE_INPUTS)
    return next((cache for cache in found if cache is not None), None)


def cached_length(cache: Any) -> int:
    """Tokens in a cache; 0 for None."""
    return 0 if cache is None else int(cache.get_seq_length())


def continue_from_prefix(prefix: CompressedPrefix, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a forward over new tokens, with the mask and position ids that fit the cache.

    The attention mask in `inputs` may cover the caller's sequence or the compressed one.

    Raises:
        ValueError: The attention mask covers neither.
    """
    tokens = inputs.get("input_ids")
    if tokens is None:
        tokens = inputs["inputs_embeds"]
    batch, new = tokens.shape[:2]
    copies = batch // prefix.attention_mask.shape[0]
    prefix_mask = prefix.attention_mask.repeat_interleave(copies, dim=0)  # [B * copies, K]
    generated = cached_length(given_cache(inputs)) - prefix_mask.shape[1]
    result = dict(inputs)

    # Replace the part of the mask that covers the caller's prompt.
    mask = inputs.get("attention_mask")
    whole = prefix.caller_length + generated + new
    compressed = prefix_mask.shape[1] + generated + new
    if mask is None and prefix.padded:
        mask = prefix_mask.new_ones(batch, whole)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        if mask.shape[1] == whole:
            tail = mask[:, prefix.caller_length :]  # [B, generated + new]
            mask = torch.cat([prefix_mask.to(mask), tail], dim=1)  # [B, K + generated + new]
        elif mask.shape[1] != compressed:
            raise ValueError(
                f"attention_mask covers {mask.shape[1]} tokens, but it must cover {whole} (the "
                f"whole sequence) or {compressed} (the compressed one) to match the cache."
            )
    result["attention_mask"] = mask
    # New tokens count on from the position ids of the compressed prompt.
    if inputs.get("position_ids") is None:
        first = prefix.next_position.repeat_interleave(copies, dim=-2) + generated
        result["position_ids"] = first + torch.arange(new, device=first.device)
    return result
