"""What a mapper is, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from ..checks import check_count
from ..config import Modality, Network
from .identity import ModelIdentity

NETWORKS: tuple[str, ...] = get_args(Network)
"""Names of the networks."""


@dataclass(frozen=True)
class MapperConfig:
    """Settings of a mapper.

    Attributes:
        base_model: The model whose attention it reads.
        network: "conv1d", the paper's, or "grid", this library's.
        modality: "image" or "video".
        network_options: Keyword arguments of the network.
        scoring_depth: Decoder layers that run before the one whose attention is read; 0 is the
            paper's.
        training: What it was trained on, and how; free-form JSON, for the model card.
        metrics: What it reached on held-out data; free-form JSON.
        versions: Versions of the libraries that trained it.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: The network or the modality is unknown, or the depth is one that the model does
            not have.
    """

    base_model: ModelIdentity
    network: str = "grid"
    modality: Modality = "image"
    network_options: dict[str, Any] = field(default_factory=dict)
    scoring_depth: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.base_model, ModelIdentity):
            kind = type(self.base_model).__name__
            raise TypeError(f"base_model of a mapper must be a ModelIdentity, not {kind}.")
        for name in ("network_options", "training", "metrics", "versions"):
            value = getattr(self, name)
            if not isinstance(value, dict):
                raise TypeError(f"{name} of a mapper must be a dict, not {type(value).__name__}.")
        check_count("scoring_depth of a mapper", self.scoring_depth, at_least=0)
        if self.scoring_depth >= self.base_model.layers:
            raise ValueError(
                f"scoring_depth of a mapper must be below the {self.base_model.layers} decoder "
                f"layers of its model, but it is {self.scoring_depth}."
            )
        if self.network not in NETWORKS:
            raise ValueError(
                f"There is no mapper network named {self.network!r}: choose one of "
                f"{', '.join(NETWORKS)}, or update hf_token_compress."
            )
        if self.modality not in get_args(Modality):
            raise ValueError(
                f"A mapper's modality is 'image' or 'video', but this one's is {self.modality!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types."""
        return {**asdict(self), "base_model": self.base_model.to_dict()}

    def to_json(self) -> str:
        """All settings as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> MapperConfig:
        """Read what `to_dict` wrote; keys of later versions are ignored.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: Something that a mapper needs is missing, or has a wrong value.
        """
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in settings.items() if name in known}
        if not isinstance(values.get("base_model"), Mapping) or "network" not in values:
            raise ValueError(
                "This config.json is not a token mapper's: it names no network and base_model."
            )
        values["base_model"] = ModelIdentity.from_dict(values["base_model"])
        return cls(**values)
