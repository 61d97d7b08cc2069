"""What a cache remembers of the compressed prompt that filled it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from .rewriting import CompressedInputs, next_position

_ATTRIBUTE = "compressed_prefix"
# The forward keyword that carries the cache: from Transformers 5.24 on, and before.
CACHE_INPUTS = ("cache", "past_key_values")
UNKNOWN_ID = -1
"""Stands for a token in the cache whose id the caller did not pass."""


@dataclass(frozen=True)
class CompressedPrefix:
    """A compressed prompt, and how it relates to the caller's.

    Attributes:
        input_ids: int64 [B, K], of the compressed prompt; `UNKNOWN_ID` where it is not known.
        attention_mask: int64 [B, K], of the compressed prompt.
        position_ids: int64 [A, B, K] or [B, K], of the compressed prompt.
        keep: bool [B, S], tokens of the caller's prompt that were kept; None if the cache was
            cropped so that no length of the caller's prompt fits all samples.
        padded: Whether the compressed prompt has padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    keep: Tensor | None
    padded: bool

    @classmethod
    def of(cls, compressed: CompressedInputs) -> CompressedPrefix:
        """The prefix that a rewritten prompt leaves in a cache."""
        ids = compressed.inputs["input_ids"]
        given = compressed.inputs.get("attention_mask")
        mask = torch.ones_like(ids) if given is None else given.long()
        positions = compressed.inputs["position_ids"]
        return cls(ids, mask, positions, compressed.keep, compressed.padded)

    @property
    def length(self) -> int:
        """K, tokens of the compressed prompt."""
        return self.attention_mask.shape[1]

    @property
    def caller_length(self) -> int | None:
        """S, tokens of the caller's prompt."""
        return None if self.keep is None else self.keep.shape[1]

    @property
    def next_position(self) -> Tensor:
        """int64 [A, B, 1] or [B, 1], position ids of the token after the prompt."""
        return next_position(self.position_ids, self.attention_mask.bool())

    def begins(self, input_ids: Tensor) -> bool:
        """Whether the kept tokens of the caller's prompt stand in these ids, int64 [B, S + new]."""
        if self.keep is None:
            return False
        held = self.input_ids[self.attention_mask.bool()]
        given = input_ids[:, : self.caller_length][self.keep]
        return bool(((given == held) | (held == UNKNOWN_ID)).all())

    def ids_from(self, input_ids: Tensor) -> Tensor:
        """Ids of the compressed prompt, int64 [B, K], from the caller's, int64 [B, S + new]."""
        kept = input_ids[:, : self.caller_length][self.keep]
        return self.input_ids.masked_scatter(self.attention_mask.bool(), kept)

    def followed_by(self, other: CompressedPrefix) -> CompressedPrefix:
        """The prefix with more tokens after it."""
        positions = same_axes(self.position_ids, other.position_ids)
        following = same_axes(other.position_ids, positions)
        keep = None
        if self.keep is not None and other.keep is not None:
            keep = torch.cat([self.keep, other.keep], dim=1)
        return CompressedPrefix(
            input_ids=torch.cat([self.input_ids, other.input_ids], dim=1),
            attention_mask=torch.cat([self.attention_mask, other.attention_mask], dim=1),
            position_ids=torch.cat([positions, following], dim=-1),
            keep=keep,
            padded=self.padded or other.padded,
        )

    def followed_by_text(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
    ) -> CompressedPrefix:
        """The prefix with tokens after it that all were kept, [..., B, N] each."""
        mask = attention_mask.long()
        padded = not bool(mask.all())
        text = CompressedPrefix(input_ids, mask, position_ids, mask.bool(), padded)
        return self.followed_by(text)

    def select(self, samples: Any) -> CompressedPrefix:
        """Only these samples, by any index of a tensor's first axis."""
        if isinstance(samples, Tensor):
            samples = samples.to(self.input_ids.device)
        return replace(
            self,
            input_ids=self.input_ids[samples],
            attention_mask=self.attention_mask[samples],
            position_ids=self.position_ids[..., samples, :],
            keep=None if self.keep is None else self.keep[samples],
        )

    def for_batch(self, batch: int) -> CompressedPrefix:
        """The prefix for a batch that has more or fewer copies of every sample.

        Raises:
            ValueError: The batch has other samples.
        """
        samples = torch.arange(len(self.input_ids))
        if batch % len(samples) == 0:
            samples = samples.repeat_interleave(batch // len(samples))
        elif len(samples) % batch == 0:
            samples = samples[:: len(samples) // batch]
        else:
            raise ValueError(
                f"The cache holds {len(samples)} compressed prompts and cannot be continued by "
                f"{batch} samples: pass as many samples, or select those of the cache."
            )
        return self if len(samples) == len(self.input_ids) else self.select(samples)

    def crop(self, length: int) -> CompressedPrefix:
        """Only the first `length` tokens."""
        mask = self.attention_mask[:, :length]
        keep = self.keep
        if keep is not None:
            # The caller's prompt ends behind the last token that is left.
            before = keep.cumsum(1) < mask.sum(1, keepdim=True)  # [B, S]
            ends = before.sum(1) + 1  # [B]
            keep = keep[:, : int(ends[0])] if bool((ends == ends[0]).all()) else None
        return replace(
            self,
            input_ids=self.input_ids[:, :length],
            attention_mask=mask,
            position_ids=self.position_ids[..., :length],
            keep=keep,
        )


def same_axes(position_ids: Tensor, others: Tensor) -> Tensor:
    """Position ids with those of their axes that others have too, int64 [A, B, N] or [B, N]."""
    if others.ndim > position_ids.ndim:
        return position_ids.expand(len(others), *position_ids.shape)
    if others.ndim < position_ids.ndim:
        return position_ids
    # Text order, which callers may leave out, comes first.
    return position_ids[-len(others) :] if position_ids.ndim == 3 else position_ids


class _RememberingLayer(CacheLayerMixin):
    """The first layer of a cache that holds a compressed prompt.

    Transformers passes whatever changes a cache on to its layers, so this one keeps the prefix
    right. The layers of other caches keep their class.
    """

    def reset(self) -> None:
        super().reset()
        _forget(self)

    def crop(self, *args: Any, **kwargs: Any) -> None:
        super().crop(*args, **kwargs)  # type: ignore[misc]
        length = int(self.get_seq_length())
        if length == 0:
            _forget(self)
        elif length < _prefix(self).length:
            setattr(self, _ATTRIBUTE, _prefix(self).crop(length))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        setattr(self, _ATTRIBUTE, _prefix(self).select(beam_idx))

    def batch_select_indices(self, indices: Any) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        setattr(self, _ATTRIBUTE, _prefix(self).select(indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        prefix = _prefix(self)
        setattr(self, _ATTRIBUTE, prefix.for_batch(len(prefix.input_ids) * repeats))

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time, so rebuild it from the stock class, not by name.
        reduced: Any = super().__reduce_ex__(max(protocol, 2))
        return (_new_layer, (_stock_class(self),), *reduced[2:])


@functools.cache
def _remembering_class(stock_class: Any) -> Any:
    namespace = {
        "__module__": stock_class.__module__,
        "__qualname__": stock_class.__qualname__,
        "__doc__": stock_class.__doc__,
        # Transformers registers every layer class that has this name.
        "_layer_type": None,
    }
    return type(stock_class.__name__, (_RememberingLayer, stock_class), namespace)


def _new_layer(stock_class: Any) -> Any:
    cls = _remembering_class(stock_class)
    return cls.__new__(cls)


def _stock_class(layer: Any) -> Any:
    return type(layer).__mro__[2]


def _prefix(layer: Any) -> CompressedPrefix:
    prefix: CompressedPrefix = getattr(layer, _ATTRIBUTE)
    return prefix


def _forget(layer: Any) -> None:
    delattr(layer, _ATTRIBUTE)
    layer.__class__ = _stock_class(layer)


def _first_layer(cache: Any) -> Any:
    """The first layer that knows its length, or None."""
    layers = getattr(cache, "layers", ())
    return next((layer for layer in layers if isinstance(layer, CacheLayerMixin)), None)


def remember_prefix(caches: Iterator[Any], prefix: CompressedPrefix) -> None:
    """Attach the prefix to those of the caches that are filled.

    A call that was interrupted may have filled a cache with its first tokens only.
    """
    for cache in caches:
        length = cached_length(cache)
        if length > 0:
            layer = _first_layer(cache)
            if not isinstance(layer, _RememberingLayer):
                stock_class: Any = type(layer)
                layer.__class__ = _remembering_class(stock_class)
            held = prefix if length >= prefix.length else prefix.crop(length)
            setattr(layer, _ATTRIBUTE, held)


def recall_prefix(cache: Any) -> CompressedPrefix | None:
    """The prefix attached to a cache; None if it holds no compressed prompt."""
    layer = _first_layer(cache)
    prefix: CompressedPrefix | None = getattr(layer, _ATTRIBUTE, None)
    # The length comes last: to read that of a static cache waits for the device.
    if prefix is not None and cached_length(cache) == 0:
        _forget(layer)
        return None
    return prefix


def forget_prefix(cache: Any) -> None:
    """Detach the prefix from a cache, if it has one."""
    layer = _first_layer(cache)
    if isinstance(layer, _RememberingLayer):
        _forget(layer)


def given_cache(inputs: Mapping[str, Any]) -> Any:
    """The cache among the inputs of a forward or of `generate`, or None."""
    found = (inputs.get(name) for name in CACHE_INPUTS)
    return next((cache for cache in found if cache is not None), None)


def caches_of(cache: Any, output: Any = None) -> Iterator[Any]:
    """A given cache, and those in the output of a forward or of `generate`."""
    values = tuple(output.values()) if isinstance(output, dict) else output
    for value in (cache, *(values if isinstance(values, tuple) else ())):
        if isinstance(value, Cache):
            yield value


def cached_length(cache: Any) -> int:
    """Tokens in a cache; 0 without one."""
    # That of continuous batching holds many sequences and has no length.
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
