"""Continue from the cache of a compressed prompt as if the prompt were whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .cached_prefix import CompressedPrefix, cached_length, given_cache
from .inputs import TOKEN_TYPES


def continued_inputs(prefix: CompressedPrefix, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a forward over new tokens, with the mask and position ids that fit the cache.

    The attention mask in `inputs` may cover the caller's sequence or the compressed one, the
    position ids these or the new tokens.

    Raises:
        ValueError: The mask or the position ids cover neither, or there are other samples.
    """
    tokens = inputs.get("input_ids")
    if tokens is None:
        tokens = inputs["inputs_embeds"]
    batch, new = tokens.shape[:2]
    prefix = prefix.for_batch(batch)
    after = cached_length(given_cache(inputs)) - prefix.length + new
    result = dict(inputs)
    mask = inputs.get("attention_mask")
    if (mask is None and prefix.padded) or (isinstance(mask, Tensor) and mask.ndim == 2):
        result["attention_mask"] = fitting_mask(prefix, mask, after)
    # New tokens count on from the position ids of the compressed prompt.
    positions = inputs.get("position_ids")
    if positions is None:
        first = prefix.next_position + after - new
        positions = first + torch.arange(new, device=first.device)
    elif positions.shape[-1] != new:
        positions = fitting_positions(prefix, positions, after)[..., -new:]
    result["position_ids"] = positions
    return result


def continued_prompt(prefix: CompressedPrefix, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the stock `generate` that continue the cache of a compressed prompt.

    As in the stock model, `input_ids` holds the whole sequence so far, or only the new tokens if
    the attention mask is longer.

    Raises:
        ValueError: The ids, the mask or the position ids do not fit the cache.
    """
    check_prompt(arguments)
    ids, mask = arguments["input_ids"], arguments.get("attention_mask")
    batch, length = ids.shape
    prefix = prefix.for_batch(batch)
    generated = cached_length(given_cache(arguments)) - prefix.length
    new_only = has_new_tokens_only(arguments)
    before = 0 if new_only else prefix.caller_length
    after = generated + length if new_only else length - (before or 0)
    if before is None or after <= generated:
        held = "another prompt" if before is None else f"the first {before + generated} of them"
        raise ValueError(
            f"input_ids has {length} tokens, but the cache holds {held}: "
            "pass the whole sequence with new tokens at its end, or only the new tokens and an "
            "attention_mask of the whole sequence."
        )
    result = {**arguments, "attention_mask": fitting_mask(prefix, mask, after)}
    positions = arguments.get("position_ids")
    if positions is None:
        tail = result["attention_mask"][:, prefix.length :].long()  # [B, after]
        following = prefix.next_position + (tail.cumsum(1) - 1).clamp(min=0)
        positions = torch.cat([prefix.position_ids, following], dim=-1)  # [..., B, K + after]
    result["position_ids"] = fitting_positions(prefix, positions, after)
    if not new_only:
        if not prefix.begins(ids):
            raise ValueError(
                "input_ids does not begin with the prompt that the cache holds: pass the sequence "
                "that the cache belongs to, with the same padding, or start without a cache."
            )
        result["input_ids"] = torch.cat([prefix.ids_from(ids), ids[:, before:]], dim=1)
        for name in TOKEN_TYPES:
            types = arguments.get(name)
            if isinstance(types, Tensor) and types.shape == ids.shape:
                text = torch.zeros_like(prefix.input_ids)
                result[name] = torch.cat([text.to(types), types[:, before:]], dim=1)
    return result


def check_prompt(arguments: Mapping[str, Any]) -> None:
    """Check that `generate` can continue a cache with these arguments.

    Raises:
        ValueError: There are no ids, or the mask is not one of tokens.
    """
    ids, mask = arguments.get("input_ids"), arguments.get("attention_mask")
    if not isinstance(ids, Tensor) or (mask is not None and mask.ndim != 2):
        raise ValueError(
            "generate continues the cache of a compressed prompt from input_ids and a mask [B, S]: "
            "pass these, and no inputs_embeds."
        )


def has_new_tokens_only(arguments: Mapping[str, Any]) -> bool:
    """Whether `input_ids` holds only new tokens: the attention mask is then longer."""
    mask = arguments.get("attention_mask")
    return mask is not None and mask.shape[1] > arguments["input_ids"].shape[1]


def fitting_mask(prefix: CompressedPrefix, mask: Tensor | None, after: int) -> Tensor:
    """The mask of the compressed prompt and `after` more tokens, int [B, K + after]."""
    if mask is None:
        mask = prefix.attention_mask.new_ones(len(prefix.attention_mask), prefix.length + after)
        tail = mask[:, prefix.length :]
    elif mask.shape[1] == prefix.length + after:
        return mask
    elif prefix.caller_length is not None and mask.shape[1] == prefix.caller_length + after:
        tail = mask[:, prefix.caller_length :]
    else:
        raise _misfit("attention_mask covers", mask.shape[1], prefix, after)
    return torch.cat([prefix.attention_mask.to(tail), tail], dim=1)


def fitting_positions(prefix: CompressedPrefix, positions: Tensor, after: int) -> Tensor:
    """Position ids of the compressed prompt and `after` more tokens, int64 [..., B, K + after]."""
    length = positions.shape[-1]
    if length == prefix.length + after:
        return positions
    caller = prefix.caller_length
    if caller is None or length != caller + after or positions.shape[:-1] != _axes(prefix):
        raise _misfit("position_ids cover", length, prefix, after)
    return torch.cat([prefix.position_ids.to(positions), positions[..., caller:]], dim=-1)


def _axes(prefix: CompressedPrefix) -> torch.Size:
    return prefix.position_ids.shape[:-1]


def _misfit(what: str, length: int, prefix: CompressedPrefix, after: int) -> ValueError:
    compressed = f"{prefix.length + after} (the compressed one)"
    if prefix.caller_length == prefix.length:
        compressed = f"{prefix.length + after} (the whole sequence)"
    elif prefix.caller_length is not None:
        compressed = f"{prefix.caller_length + after} (the whole sequence) or {compressed}"
    return ValueError(f"{what} {length} tokens, but must cover {compressed} to match the cache.")
