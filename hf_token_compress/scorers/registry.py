"""Names of scorers: the built-in rows, and those that users add."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from .base import Scorer

ScorerClass = TypeVar("ScorerClass", bound=type[Scorer])

_BUILT_IN = {
    "attention": ".attention:AttentionScorer",
    "mapper": ".mapper:MapperScorer",
    "random": ".random:RandomScorer",
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
        if not (isinstance(cls, type) and issubclass(cls, Scorer)):
            raise TypeError(f"register_scorer({name!r}) takes a subclass of Scorer, not {cls!r}.")
        known = _REGISTERED.get(name)
        # A notebook cell that is run again defines the same class anew: let it replace itself.
        redefined = known is not None and (known.__module__, known.__qualname__) == (
            cls.__module__,
            cls.__qualname__,
        )
        if name in _BUILT_IN or (known is not None and not redefined):
            raise ValueError(f"A scorer named {name!r} exists already: choose another name.")
        _REGISTERED[name] = cls
        return cls

    return register


def build_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """Make the scorer of that name.

    Raises:
        ValueError: No scorer has that name, or it does not take one of the options.
    """
    scorer_class = _REGISTERED.get(name)
    if scorer_class is None and name in _BUILT_IN:
        module, class_name = _BUILT_IN[name].split(":")
        scorer_class = getattr(import_module(module, __package__), class_name)
    if scorer_class is None:
        raise ValueError(
            f"There is no scorer named {name!r}: choose one of {', '.join(available_scorers())}, "
            "or add your own with hf_token_compress.register_scorer."
        )
    accepted = set(inspect.signature(scorer_class).parameters)
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise ValueError(
            f"Scorer {name!r} does not take the option(s) {', '.join(unknown)}: it takes "
            f"{', '.join(sorted(accepted)) or 'none'}."
        )
    return scorer_class(**options)
