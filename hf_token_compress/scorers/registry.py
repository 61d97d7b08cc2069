"""Names of scorers: the built-in ones and those that users register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..registry import Registry

if TYPE_CHECKING:
    from .base import Scorer

ScorerClass = TypeVar("ScorerClass", bound=type)

SCORERS: Registry[Scorer] = Registry(
    "scorer",
    f"{__package__}.base:Scorer",
    {
        "attention": f"{__package__}.attention:AttentionScorer",
        "attention_without_rope": f"{__package__}.unrotated_attention:UnrotatedAttentionScorer",
        "cdpruner": f"{__package__}.cdpruner:CDPrunerScorer",
        "dart": f"{__package__}.dart:DartScorer",
        "divprune": f"{__package__}.divprune:DivPruneScorer",
        "gated_fusion": f"{__package__}.gated_fusion:GatedFusionScorer",
        "hawk": f"{__package__}.hawk:HawkScorer",
        "idpruner": f"{__package__}.idpruner:IDPrunerScorer",
        "mapper": f"{__package__}.mapper:MapperScorer",
        "priortr": f"{__package__}.priortr:PriorTRScorer",
        "prumerge": f"{__package__}.prumerge:PruMergeScorer",
        "random": f"{__package__}.random:RandomScorer",
        "scope": f"{__package__}.scope:ScopeScorer",
        "text_similarity": f"{__package__}.text_similarity:TextSimilarityScorer",
        "uniform": f"{__package__}.uniform:UniformScorer",
        "visionzip": f"{__package__}.visionzip:VisionZipScorer",
        "vispruner": f"{__package__}.vispruner:VisPrunerScorer",
        "whitened_similarity": f"{__package__}.whitened_similarity:WhitenedSimilarityScorer",
        "zoo_prune": f"{__package__}.zoo_prune:ZooPruneScorer",
    },
)


def available_scorers() -> tuple[str, ...]:
    """Names that `TokenCompressionConfig(scorer=…)` takes, sorted."""
    return SCORERS.names()


def register_scorer(name: str) -> Callable[[ScorerClass], ScorerClass]:
    """Class decorator that makes a `Scorer` available under `name`.

    Raises:
        TypeError: The decorated object is not a subclass of `Scorer`.
        ValueError: Another scorer has that name already.
    """
    return SCORERS.decorator(name)


def build_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """Make the scorer of that name.

    Raises:
        ValueError: No scorer has that name, or it does not take one of the options.
    """
    return SCORERS.build(name, options)
