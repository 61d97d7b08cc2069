"""Settings of a mapper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from ..checks import check_choice, check_number
from ..config import MODALITIES, Modality, Network
from .identity import ModelIdentity, json_fields
from .inputs import INPUTS, WORDS

NETWORKS: tuple[str, ...] = (*get_args(Network), "question")
"""Names of the networks; `train` makes all but the last, which needs more than it collects."""

MAX_LAYERS = 1000
"""Most layers or blocks of a network: a config.json cannot make one that takes minutes to build."""

MAX_CHANNELS = 4096
"""Most channels of a layer."""

_JSON_TYPES = {
    "base_model": dict,
    "network": str,
    "modality": str,
    "network_options": dict,
    "inputs": list,
    "scoring_depth": int,
    "training": dict,
    "metrics": dict,
    "versions": dict,
}


@dataclass(frozen=True)
class MapperConfig:
    """Settings of a mapper.

    Attributes:
        base_model: The model whose attention it reads.
        network: "conv1d" (arXiv 2506.01097), "grid" or "question".
        modality: "image" or "video".
        network_options: Keyword arguments of the network.
        inputs: Groups of input channels, from "attention", "text" and "embedding" (`MapperInput`);
            "words" alone for the network "question", which reads embeddings themselves.
        scoring_depth: Decoder layers before the layer whose attention it reads; 0 in the paper.
        training: Data and options of the training, free-form JSON for the model card.
        metrics: Results on held-out data, free-form JSON for the model card.
        versions: Versions of the libraries that trained it.

    Raises:
        TypeError: `scoring_depth` is not a whole number.
        ValueError: The network, the modality or an input is unknown, there is no input, or the
            model has no layer `scoring_depth`.
    """

    base_model: ModelIdentity
    network: str = "grid"
    modality: Modality = "image"
    network_options: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("attention",)
    scoring_depth: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(
                f"There is no mapper network {self.network!r}: choose from {', '.join(NETWORKS)}, "
                "or update hf_token_compress."
            )
        check_choice("modality of a mapper", self.modality, MODALITIES)
        known = (WORDS,) if self.network == "question" else INPUTS
        for name in self.inputs or ("",):
            check_choice(f"Each of the inputs of a mapper {self.network!r}", name, known)
        ordered = tuple(name for name in known if name in self.inputs)
        object.__setattr__(self, "inputs", ordered)
        depths = f"[0, {self.base_model.layers - 1}]"
        check_number("scoring_depth of a mapper", self.scoring_depth, depths, whole=True)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types."""
        settings = {"base_model": self.base_model.to_dict(), "inputs": list(self.inputs)}
        return {**asdict(self), **settings}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> MapperConfig:
        """Read what `to_dict` wrote; settings of later versions are ignored.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: The settings are not of a mapper, or a value is missing, unknown or out of
                range.
        """
        if not {"base_model", "network"} <= set(settings):
            raise ValueError("its config.json has no base_model or no network.")
        values = json_fields(settings, _JSON_TYPES)
        return cls(**{**values, "base_model": ModelIdentity.from_dict(values["base_model"])})
