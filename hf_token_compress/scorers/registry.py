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
        "mapper": f"{__package__}.mapper:MapperScorer",
        "random": f"{__package__}.random:RandomScorer",
        "uniform": f"{__package__}.uniform:UniformScorer",
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
