"""Which model a mapper belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..checks import check_count
from ..scoring_layer import ScoringLayer

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

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A size is less than 1, or the fingerprint has another length.
    """

    name: str
    revision: str | None
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    fingerprint: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "model_type"):
            value = getattr(self, name)
            if not isinstance(value, str):
                kind = type(value).__name__
                raise TypeError(f"{name} of a mapper's model must be a string, not {kind}.")
        if self.revision is not None and not isinstance(self.revision, str):
            kind = type(self.revision).__name__
            raise TypeError(f"revision of a mapper's model must be a string or None, not {kind}.")
        for name in ("hidden_size", "layers", "heads"):
            check_count(f"{name} of a mapper's model", getattr(self, name), at_least=1)
        if not all(isinstance(number, Real) for number in self.fingerprint):
            raise TypeError("fingerprint of a mapper's model must be numbers.")
        if len(self.fingerprint) not in (0, _FINGERPRINT_SIZE):
            raise ValueError(
                f"fingerprint of a mapper's model must be {_FINGERPRINT_SIZE} numbers or none, but "
                f"it has {len(self.fingerprint)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "fingerprint": list(self.fingerprint)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelIdentity:
        """Read what `to_dict` wrote; keys of later versions are ignored.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is missing, or out of its range.
        """
        known = [item.name for item in fields(cls)]
        missing = [name for name in known if name not in values and name != "fingerprint"]
        if missing:
            raise ValueError(f"The base model of a mapper is described without {missing[0]}.")
        fingerprint = values.get("fingerprint", ())
        if isinstance(fingerprint, str) or not isinstance(fingerprint, Sequence):
            kind = type(fingerprint).__name__
            raise TypeError(f"fingerprint of a mapper's model must be a list, not {kind}.")
        described = {name: values[name] for name in known if name in values}
        return cls(**{**described, "fingerprint": tuple(fingerprint)})

    def difference(self, other: ModelIdentity) -> str | None:
        """Why a mapper of this model does not fit another one; None where it does.

        Names are not compared: a copy in a folder and a fine-tuned model read their images with
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


def layer_fingerprint(scoring_layer: ScoringLayer, like: Tensor) -> tuple[float, ...]:
    """Queries of a fixed input, as a unit vector of 32 numbers.

    It recognises the weights whose attention a mapper reads, through rounding, quantisation and
    light fine-tuning, wherever the model came from.

    Args:
        scoring_layer: The layer.
        like: A floating-point tensor [..., D] whose width, dtype and device the input takes.
    """
    width = like.shape[-1]
    values = torch.arange(1, width + 1, dtype=torch.float64).mul(2.399963).sin()
    with torch.no_grad(), scoring_layer.in_evaluation_mode():
        hidden = scoring_layer.input_norm(values.to(like).view(1, width))
        query = scoring_layer.query_projection(hidden)[0].double().cpu()  # [heads * head_dim]
    places = torch.linspace(0, len(query) - 1, _FINGERPRINT_SIZE).long()
    unit = torch.nn.functional.normalize(query[places], dim=0)
    return tuple(round(value, 5) for value in unit.tolist())
