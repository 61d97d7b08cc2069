"""Compress the images of a next turn, and continue a filled cache with them.

The new tokens are compressed as a prompt of their own: earlier turns are neither compressed again
nor seen by the scorer. What stays of them follows the tokens in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..models.family import ModelFamily
from ..prompt import MODALITIES
from .cached_prefix import (
    CACHE_INPUTS,
    UNKNOWN_ID,
    CompressedPrefix,
    cached_length,
    given_cache,
    same_axes,
)
from .continuation import (
    check_prompt,
    continued_prompt,
    fitting_mask,
    fitting_positions,
    has_new_tokens_only,
)
from .inputs import (
    TOKEN_TYPES,
    check_shape,
    is_placeholder,
    placeholder_modalities,
    present_modalities,
)
from .rewriting import CompressedInputs

# Inputs with one entry per new token.
_OF_TOKENS = (*TOKEN_TYPES, "labels", "shift_labels")


@dataclass(frozen=True)
class Turn:
    """Tokens with images or videos, and what the cache holds before them.

    Attributes:
        inputs: Keyword arguments of the stock forward or `generate` for T tokens; without the
            cache if that is filled.
        cached: The L tokens in the cache; None if it is empty.
        earlier: Ids and token types of the caller's tokens in the cache, int64 [B, C]; empty if the
            caller passed the new tokens alone.
        earlier_text: Their ids with padding in place of placeholders, int64 [B, C], or None.
        carried: The cache, by its keyword.
    """

    inputs: dict[str, Any]
    cached: CompressedPrefix | None = None
    earlier: Mapping[str, Tensor] = field(default_factory=dict)
    earlier_text: Tensor | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)

    def own(self, mask: Any) -> Any:
        """The part [B, T] of a mask of the caller's sequence."""
        if not self.earlier or not isinstance(mask, Tensor) or mask.ndim != 2:
            return mask
        before, new = self.earlier["input_ids"].shape[1], self.inputs["input_ids"].shape[1]
        return mask[:, before:] if mask.shape[1] == before + new else mask

    def joined(
        self, compressed: CompressedInputs, *, generating: bool = False
    ) -> tuple[dict[str, Any], CompressedPrefix]:
        """Inputs of the stock forward or `generate` for what stays of the new tokens.

        Returns:
            The inputs, and what the cache holds after the call.
        """
        own, cached = CompressedPrefix.of(compressed), self.cached
        if cached is None:
            return compressed.inputs, own
        first = same_axes(cached.next_position, own.position_ids)
        positions = same_axes(own.position_ids, first) + first  # [..., B, K]
        whole = cached.followed_by(replace(own, position_ids=positions))
        inputs = {**compressed.inputs, **self.carried, "attention_mask": whole.attention_mask}
        inputs["position_ids"] = whole.position_ids if generating else positions
        if self.earlier_text is not None:
            # `generate` counts placeholders in all ids, but gets the features of new ones.
            before = cached.ids_from(self.earlier_text)  # [B, L]
            inputs["input_ids"] = torch.cat([before, own.input_ids], dim=1)
        for name in TOKEN_TYPES:
            # Some models read `token_type_ids` by column of the cache.
            if inputs.get(name) is not None and (generating or name == "token_type_ids"):
                text = torch.zeros_like(cached.input_ids).to(inputs[name])  # [B, L]
                inputs[name] = torch.cat([text, inputs[name]], dim=1)
        return inputs, whole


def turn_of_forward(
    model: Any, family: ModelFamily, prefix: CompressedPrefix | None, inputs: Mapping[str, Any]
) -> Turn:
    """The turn of a forward, whose `input_ids` are the new tokens, int64 [B, T].

    Args:
        model: The loaded model.
        family: Its family.
        prefix: What the cache remembers.
        inputs: Keyword arguments of the stock forward, with images or videos.

    Raises:
        ValueError: The mask or the position ids do not fit the cache, or it has other samples.
    """
    ids, mask, positions = (
        inputs.get(name) for name in ("input_ids", "attention_mask", "position_ids")
    )
    length = cached_length(given_cache(inputs))
    if length == 0 or not isinstance(ids, Tensor) or ids.ndim != 2:
        return Turn(dict(inputs))
    if mask is not None and mask.ndim != 2:
        raise ValueError(
            "Token compression continues a cache with a mask of its tokens: pass attention_mask as "
            "[B, S]."
        )
    if prefix is None:
        prefix = _uncompressed_prefix(model, family, inputs, length, generating=False)
    batch, new = ids.shape
    prefix = prefix.for_batch(batch)
    generated = length - prefix.length
    mask = fitting_mask(prefix, mask, generated + new)  # [B, L + T]
    if positions is not None and positions.shape[-1] != new:
        positions = fitting_positions(prefix, positions, generated + new)[..., -new:]
    unknown = ids.new_full((batch, generated), UNKNOWN_ID)
    between = mask[:, prefix.length : length].long()  # [B, L - K]
    following = prefix.next_position + (between.cumsum(dim=1) - 1).clamp(min=0)
    cached = prefix.followed_by_text(unknown, between, following)
    return _turn(model, family, cached, ids, mask[:, length:], positions, inputs)


def turn_of_prompt(
    model: Any, family: ModelFamily, prefix: CompressedPrefix | None, arguments: Mapping[str, Any]
) -> Turn:
    """The turn of a `generate`.

    As in the stock model, `input_ids` holds the whole sequence so far, or only the new tokens if
    the attention mask is longer. In both cases, images and videos may be the new ones alone; with
    the whole sequence, also all of them.

    Args:
        model: The loaded model.
        family: Its family.
        prefix: What the cache remembers.
        arguments: Keyword arguments of the stock `generate`, with images or videos.

    Raises:
        ValueError: The ids, the mask or the position ids do not fit the cache, or it has other
            samples.
    """
    length = cached_length(given_cache(arguments))
    if length == 0:
        return Turn(dict(arguments))
    check_prompt(arguments)
    if prefix is None:
        prefix = _uncompressed_prefix(model, family, arguments, length, generating=True)
    ids = arguments["input_ids"]
    prefix = prefix.for_batch(len(ids))
    whole = continued_prompt(prefix, arguments)
    mask, positions = whole["attention_mask"], whole["position_ids"]  # [B, L + T], [..., B, L + T]
    new = mask.shape[1] - length
    between = slice(prefix.length, length)
    if has_new_tokens_only(arguments):
        earlier = None
        generated = ids.new_full((len(ids), length - prefix.length), UNKNOWN_ID)
    else:
        earlier = _first_tokens(arguments, ids.shape[1] - new)
        generated = whole["input_ids"][:, between]
        prefix = replace(prefix, input_ids=whole["input_ids"][:, : prefix.length])
    cached = prefix.followed_by_text(generated, mask[:, between], positions[..., between])
    given = None if arguments.get("position_ids") is None else positions[..., length:]
    turn = _turn(model, family, cached, ids[:, -new:], mask[:, length:], given, arguments, earlier)
    if not earlier:
        return turn
    return replace(
        turn,
        inputs=_without_earlier_visuals(model, family, turn),
        earlier_text=_text_alone(model, family, earlier),
    )


def _turn(
    model: Any,
    family: ModelFamily,
    cached: CompressedPrefix,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor | None,
    inputs: Mapping[str, Any],
    earlier: Mapping[str, Tensor] | None = None,
) -> Turn:
    """The turn of new tokens, int64 [B, T], with their mask and their positions, if given.

    Raises:
        ValueError: The model needs the positions.
    """
    own = {name: value for name, value in inputs.items() if name not in CACHE_INPUTS}
    own.update(input_ids=ids, attention_mask=mask)
    for name in _OF_TOKENS:
        if own.get(name) is not None:
            check_shape(name, own[name], inputs["input_ids"])
            own[name] = own[name][:, -ids.shape[1] :]
    if positions is not None:
        # Number the new tokens from zero, as the prompt of their own that they are.
        first = same_axes(cached.next_position, positions)
        own["position_ids"] = same_axes(positions, first) - first
    elif family.numbers_visuals and placeholder_modalities(model, family, own):
        raise ValueError(
            "This model numbers the images of the whole sequence, so new tokens alone do not say "
            "where a new image stands: pass position_ids of the whole sequence."
        )
    carried = {name: inputs[name] for name in CACHE_INPUTS if inputs.get(name) is not None}
    return Turn(own, cached, earlier or {}, carried=carried)


def _uncompressed_prefix(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any], length: int, *, generating: bool
) -> CompressedPrefix:
    """All L tokens of a cache that no compressed prompt filled, numbered as by the stock model."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    held = ids.new_full((len(ids), length), UNKNOWN_ID)
    # How far positions are from the number of tokens: of the last uncompressed prompt.
    offset = getattr(model.base_model, "rope_deltas", None)
    if generating and not has_new_tokens_only(inputs) and ids.shape[1] > length:
        earlier = _first_tokens(inputs, length)
        held = earlier["input_ids"]
        if not placeholder_modalities(model, family, earlier):
            offset = None
    own = torch.ones_like(held)
    if mask is not None and mask.shape[1] > length:
        own = mask[:, :length].long()
    # A forward counts padding too, unless an offset goes with the mask.
    counted = own if generating or offset is not None else torch.ones_like(own)
    positions = (counted.cumsum(dim=1) - 1).clamp(min=0)  # [B, L]
    if offset is not None:
        if not offset.any():
            # Text alone, in a batch of any size.
            offset = offset[:1]
        if len(ids) % len(offset) != 0:
            raise ValueError(
                "The cache is not of the last uncompressed prompt, so the positions of its tokens "
                "are not known: pass position_ids of the whole sequence."
            )
        copies = len(ids) // len(offset)
        positions = positions + offset.to(positions).repeat_interleave(copies, dim=0)
    return CompressedPrefix(held, own, positions, own.bool(), padded=not bool(own.all()))


def _first_tokens(arguments: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """Ids and token types of the caller's first tokens, int64 [B, count]."""
    ids = arguments["input_ids"]
    given = {name: arguments[name] for name in TOKEN_TYPES if arguments.get(name) is not None}
    return {"input_ids": ids[:, :count]} | {name: own[:, :count] for name, own in given.items()}


def _text_alone(model: Any, family: ModelFamily, tokens: Mapping[str, Tensor]) -> Tensor:
    """Ids with padding in place of placeholders, int64 [B, C]."""
    ids = tokens["input_ids"]
    for modality in MODALITIES:
        placeholders = is_placeholder(model, family, tokens, modality)  # [B, C]
        ids = ids.masked_fill(placeholders, family.padding_id(model))
    return ids


def _without_earlier_visuals(model: Any, family: ModelFamily, turn: Turn) -> dict[str, Any]:
    """The inputs of a turn without modalities that only occur in earlier turns."""
    new = placeholder_modalities(model, family, turn.inputs)
    old = {*placeholder_modalities(model, family, turn.earlier)}.difference(new)
    inputs = dict(turn.inputs)
    for modality in old & set(present_modalities(family, inputs)):
        inputs.pop(family.pixel_inputs[modality], None)
        features = inputs.get("mm_encoder_outputs") or {}
        inputs["mm_encoder_outputs"] = {k: v for k, v in features.items() if k != modality}
    return inputs
