"""Which model a mapper belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_count

_FINGERPRINT_SIZE = 32
_SAME_LAYER = 0.9
_LONGEST = 1.001  # of a unit vector, rounded

_JSON_TYPES: dict[str, Any] = {
    "name": str,
    "revision": str | None,
    "model_type": str,
    "hidden_size": int,
    "layers": int,
    "heads": int,
    "fingerprint": list,
}


def json_fields(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of a JSON object, checked; fields of later versions are ignored."""
    known = {name: value for name, value in values.items() if name in kinds}
    for name, value in known.items():
        if not isinstance(value, kinds[name]):
            raise TypeError(f"{name} cannot be {value!r}.")
    return known


@dataclass(frozen=True)
class ModelIdentity:
    """The model that a mapper was trained for.

    Attributes:
        name: Hub id or folder.
        revision: Commit on the Hub, if known.
        model_type: Family, as in the model's config.json.
        hidden_size: Width of the language model.
        layers: Its decoder layers.
        heads: Its query heads.
        fingerprint: Unit vector that recognises the weights of layer 0 (`layer_fingerprint`);
            empty if unknown.

    Raises:
        TypeError: A size is not a whole number.
        ValueError: A size is below 1.
    """

    name: str
    revision: str | None
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    fingerprint: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "heads"):
            check_count(f"{name} of the base_model", getattr(self, name), at_least=1)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**asdict(self), "fingerprint": list(self.fingerprint)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelIdentity:
        """Read what `to_dict` wrote; a TypeError or ValueError if a value is missing or wrong."""
        known = json_fields(values, _JSON_TYPES)
        missing = [name for name in _JSON_TYPES if name not in {*known, "fingerprint"}]
        if missing:
            raise ValueError(f"its base_model has no {' and no '.join(missing)}.")
        fingerprint = tuple(float(number) for number in known.get("fingerprint", ()))
        # A longer vector would resemble any model; the length of one with NaN compares False.
        if not math.hypot(*fingerprint) <= _LONGEST:
            raise ValueError("the fingerprint of its base_model is not a unit vector.")
        known["fingerprint"] = fingerprint
        return cls(**known)

    def difference(self, other: ModelIdentity) -> str | None:
        """Why a mapper of the other model does not fit this one; None if it does.

        Names are not compared, because a copy or a light fine-tune of a model has nearly the same
        layer 0.
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
            own, others = len(self.fingerprint), len(other.fingerprint)
            if own != others:
                return f"a fingerprint of {own} numbers instead of {others}"
            pairs = zip(self.fingerprint, other.fingerprint, strict=True)
            similarity = math.fsum(first * second for first, second in pairs)
            if not similarity >= _SAME_LAYER:  # or NaN
                return f"other weights in layer 0 (similarity {similarity:.2f} instead of 1.00)"
        return None


def fingerprint_input(width: int) -> Tensor:
    """The fixed hidden state whose query is a layer's fingerprint, float64 [D]."""
    return torch.arange(1, width + 1, dtype=torch.float64).mul(2.399963).sin()


def layer_fingerprint(query: Tensor) -> tuple[float, ...]:
    """The query for `fingerprint_input` at position 0, as a unit vector of 32 numbers.

    It recognises the weights of the layer after rounding, quantisation or light fine-tuning,
    whatever the name of the model.

    Args:
        query: float [heads * head_dim].
    """
    query = query.double().cpu()
    spread = torch.linspace(0, len(query) - 1, _FINGERPRINT_SIZE, dtype=torch.float32)
    sampled = spread.long()  # [32]
    unit = torch.nn.functional.normalize(query[sampled], dim=0)  # [32]
    return tuple(round(value, 5) for value in unit.tolist())
