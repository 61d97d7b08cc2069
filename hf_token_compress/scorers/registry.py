"""Names of scorers: the built-in rows, and those that users add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..named_classes import build_named, check_registration
from .base import Scorer

ScorerClass = TypeVar("ScorerClass", bound=type[Scorer])

_BUILT_IN = {
    "attention": ".attention:AttentionScorer",
    "mapper": ".mapper:MapperScorer",
    "random": ".random:RandomScorer",
    "relevance": "..relevance.scorer:RelevanceScorer",
    "uniform": ".uniform:UniformScorer",
}
_REGISTERED: dict[str, type[Scorer]] = {}


def available_scorers() -> tuple[str, ...]:
    """Names that `TokenCompressionConfig(scorer=…)` takes, sorted."""
    return tuple(sorted({*_BUILT_IN, *_REGISTERED}))


def register_scorer(name: str) -> Callable[[ScorerClass], ScorerClass]:
    """Class decorator that makes a `Scorer` available under `name`.

    Raises:
        TypeError: The decorated object is not a subclass of `Scorer`.
        ValueError: Another scorer has that name already.
    """

    def register(cls: ScorerClass) -> ScorerClass:
        check_registration(cls, name, base=Scorer, built_in=_BUILT_IN, registered=_REGISTERED)
        _REGISTERED[name] = cls
        return cls

    return register


def build_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """Make the scorer of that name.

    Raises:
        ValueError: No scorer has that name, or it does not take one of the options.
    """
    scorer: Scorer = build_named(
        name,
        options,
        base=Scorer,
        built_in=_BUILT_IN,
        registered=_REGISTERED,
        package=__package__,
    )
    return scorer
