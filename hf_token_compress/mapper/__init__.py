"""The mapper: a small network that predicts relevance before the language model runs."""

from .config import NETWORKS, MapperConfig
from .files import MapperNotFoundError
from .identity import ModelIdentity, layer_fingerprint
from .inputs import MapperInput
from .labels import label_divergence, relevance_label
from .relevance_mapper import RelevanceMapper
from .resolve import MapperSet, load_mappers

__all__ = [
    "NETWORKS",
    "MapperConfig",
    "MapperInput",
    "MapperNotFoundError",
    "MapperSet",
    "ModelIdentity",
    "RelevanceMapper",
    "label_divergence",
    "layer_fingerprint",
    "load_mappers",
    "relevance_label",
]
