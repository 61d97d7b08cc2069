"""The mapper: from what the instruction looks at in layer 0 to the relevance of visual tokens."""

from .config import NETWORKS, MapperConfig
from .folders import MapperNotFoundError
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
