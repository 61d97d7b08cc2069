"""Which model a mapper belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..first_layer import FirstLayer

_FINGERPRINT_SIZE = 32
_SAME_LAYER = 0.9


@dataclass(frozen=True)
class ModelIdentity:
    """What a mapper must know of the model that it was trained for.

    Attributes:
        name: Hub id or folder.
        revision: Commit on the Hub, if known.
        model_type: Family, as in the model's config.json.
        hidden_size: Width of the language model.
        layers: Its decoder layers.
        heads: Its query heads, each of which is an input of a mapper.
        fingerprint: What layer 0 makes of a fixed input (`layer_fingerprint`); empty if unknown.
    """

    name: str
    revision: str | None
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    fingerprint: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "fingerprint": list(self.fingerprint)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelIdentity:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "fingerprint": tuple(values.get("fingerprint", ()))})

    def difference(self, other: ModelIdentity) -> str | None:
        """Why a mapper of this model does not fit another one; None where it does.

        Names are not compared: a copy in a folder and a fine-tuned model read their pictures with
        nearly the same layer 0.
        """
        for attribute, words in (
            ("model_type", "the model type"),
            ("heads", "attention heads"),
            ("hidden_size", "the hidden size"),
            ("layers", "decoder layers"),
        ):
            own, others = getattr(self, attribute), getattr(other, attribute)
            if own != others:
                return f"{words} {own!r} instead of {others!r}"
        if self.fingerprint and other.fingerprint:
            similarity = math.fsum(
                a * b for a, b in zip(self.fingerprint, other.fingerprint, strict=True)
            )
            if similarity < _SAME_LAYER:
                return f"other weights in layer 0 (similarity {similarity:.2f} instead of 1.00)"
        return None


def layer_fingerprint(first_layer: FirstLayer, like: Tensor) -> tuple[float, ...]:
    """Queries of a fixed input, as a unit vector of 32 numbers.

    It recognises the weights whose attention a mapper reads, through rounding, quantisation and
    light fine-tuning, wherever the model came from.

    Args:
        first_layer: The layer.
        like: A floating-point tensor [..., D] whose width, dtype and device the input takes.
    """
    width = like.shape[-1]
    values = torch.arange(1, width + 1, dtype=torch.float64).mul(2.399963).sin()
    with torch.no_grad():
        hidden = first_layer.input_norm(values.to(like).view(1, width))
        query = first_layer.query_projection(hidden)[0].double().cpu()  # [heads * head_dim]
    places = torch.linspace(0, len(query) - 1, _FINGERPRINT_SIZE).long()
    unit = torch.nn.functional.normalize(query[places], dim=0)
    return tuple(round(value, 5) for value in unit.tolist())
