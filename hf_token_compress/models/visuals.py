"""Outputs of the vision part of a model, in the form that the stock forward takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput
from typing_extensions import override

Change = Callable[[list[Tensor]], list[Tensor]]
"""From one tensor [N, ...] per image or video to another such list."""

# Fields of the vision tower: they do not have one entry per visual token.
_TOWER_FIELDS = {item.name for item in fields(BaseModelOutputWithPooling)}


class CompressedVisionOutput(ModelOutput):
    """Vision features of an already compressed prompt: they are not compressed again.

    Instances belong to `stock_class`, the output class of the model, too.
    """

    stock_class: ClassVar[type]

    def whole(self) -> Any:
        """The same features as a stock output: those of a prompt that can still be compressed."""
        return self.stock_class(**_with_tower_fields(self.stock_class, self))

    @override
    def __reduce__(self) -> Any:
        # The class is made at run time, so rebuild it from the stock class.
        return _compressed_output, (self.stock_class, isinstance(self, _Joined), dict(self))


class _Joined(CompressedVisionOutput):
    """Features that the stock forward takes as one tensor."""

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        # `generate` repeats features for its beams, and leaves a plain list here.
        if name == "pooler_output" and isinstance(value, list):
            value = RaggedFeatures(value)
        super().__setattr__(name, value)


class RaggedFeatures(list[Tensor]):
    """Features of images or videos that keep different numbers of tokens, float [K, D] each.

    Attributes that a list lacks are those of the tensor [1, total, D] of all features.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Protocols, such as those of `copy`, must see a list.
            raise AttributeError(name)
        return getattr(torch.cat(self)[None], name)


@dataclass(frozen=True)
class EncodedVisuals:
    """Features of all images, or all videos, of a batch.

    Attributes:
        features: One float [N, D] per image or video, in the order of the prompts.
        others: Further fields of the stock output, such as features for deeper layers. Tensors
            in them that have one entry per visual token are cut like the features.
        stock_class: Class of the stock output.
        joined: Whether the stock forward takes the features as one tensor, not as a list.
    """

    features: list[Tensor]
    others: Mapping[str, Any] = field(default_factory=dict)
    stock_class: type = BaseModelOutputWithPooling
    joined: bool = False

    @classmethod
    def from_output(cls, output: Any) -> EncodedVisuals:
        """Read the output of a stock `get_image_features` or `get_video_features`.

        Raises:
            TypeError: The output is of another kind.
            ValueError: Nothing says where the features of one image end.
        """
        if not isinstance(output, ModelOutput) or "pooler_output" not in output:
            raise TypeError(
                "Features, of the model's own vision part or in mm_encoder_outputs, must be the "
                "pooler_output of what get_image_features or get_video_features returns, but "
                f"{type(output).__name__} has none."
            )
        features: Any = output["pooler_output"]
        if isinstance(features, Tensor) and features.ndim < 3:
            raise ValueError(
                f"The vision part returns features of the shape {list(features.shape)}, which do "
                "not say where an image ends: split them in `features` of the model's family."
            )
        return cls(
            features=[own.flatten(0, -2) for own in features],  # [N, D] each
            others={name: value for name, value in output.items() if name not in _TOWER_FIELDS},
            stock_class=type(output),
            joined=isinstance(features, (Tensor, RaggedFeatures)),
        )

    def cut(self, masks: Sequence[Tensor]) -> EncodedVisuals:
        """Keep some tokens of each image or video.

        Args:
            masks: For each of them, bool [N], True on the tokens to keep.
        """
        whole = [bool(mask.all()) for mask in masks]

        def change(tensors: list[Tensor]) -> list[Tensor]:
            found = zip(tensors, masks, whole, strict=True)
            # [K, ...] each
            return [own if all_ else own[mask.to(own.device)] for own, mask, all_ in found]

        return self._changed(change)

    def choose(self, index: Tensor, counts: Sequence[int]) -> EncodedVisuals:
        """Keep some tokens of all images or videos together.

        Args:
            index: int64 [K], tokens to keep, ascending, counted through all of them.
            counts: How many of the K tokens are those of each.
        """

        def change(tensors: list[Tensor]) -> list[Tensor]:
            joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors)  # [N, ...]
            return list(joined.index_select(0, index.to(joined.device)).split(list(counts)))

        return self._changed(change)

    def split(self, length: int) -> EncodedVisuals:
        """Split each image or video every `length` visual tokens; empty ones are left out."""
        return self._changed(
            lambda tensors: [part for own in tensors for part in own.split(length) if len(part)]
        )

    def take(self, numbers: Sequence[int]) -> EncodedVisuals:
        """The images or videos of these numbers, in this order; one may occur several times."""
        return self._changed(lambda tensors: [tensors[number] for number in numbers])

    def output(self) -> CompressedVisionOutput:
        """Wrap the features for the stock forward, as those of a compressed prompt."""
        values = {"pooler_output": self.features, **self.others}
        return _compressed_output(self.stock_class, self.joined, values)

    def _changed(self, change: Change) -> EncodedVisuals:
        """Change the features, and with them all tensors that have one entry per visual token."""
        counts = [len(own) for own in self.features]
        others = {name: _map(value, counts, change) for name, value in self.others.items()}
        return replace(self, features=change(self.features), others=others)


def _map(value: Any, counts: list[int], change: Change) -> Any:
    """Apply `change` wherever `value` has one entry per visual token."""
    if isinstance(value, Tensor):
        if value.ndim > 0 and len(value) == sum(counts):
            return torch.cat(change(list(value.split(counts))))  # [total, ...]
        if value.ndim > 1 and [value.shape[1]] * len(value) == counts:
            return RaggedFeatures(change(list(value)))
        return value
    if not isinstance(value, (list, tuple)):
        return value
    if [_length(item) for item in value] == counts:
        return change(list(value))
    # Perhaps one such value for each layer.
    return type(value)(_map(item, counts, change) for item in value)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, Tensor) and value.ndim > 0 else None


def _compressed_output(
    stock_class: type, joined: bool, values: Mapping[str, Any]
) -> CompressedVisionOutput:
    output_class = _output_class(stock_class, joined)
    output: CompressedVisionOutput = output_class(**_with_tower_fields(stock_class, values))
    return output


def _with_tower_fields(stock_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and None for fields of the tower that some classes insist on."""
    needed = {item.name: None for item in fields(stock_class) if item.default is MISSING}
    return {**needed, **values}


@functools.cache
def _output_class(stock_class: type, joined: bool) -> Any:
    base = _Joined if joined else CompressedVisionOutput
    namespace = {"__module__": __name__, "stock_class": stock_class}
    return type(f"Compressed{stock_class.__name__}", (base, stock_class), namespace)
