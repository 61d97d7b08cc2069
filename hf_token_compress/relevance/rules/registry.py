"""Names of rules: the built-in rows, and those that users add."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from .base import Rule

RuleClass = TypeVar("RuleClass", bound=type[Rule])

_BUILT_IN = {
    "edges_absolute": ".edges:AbsoluteEdgesRule",
    "edges_positive": ".edges:PositiveEdgesRule",
    "gae": ".gae:GaeRule",
    "gae_normalized": ".normalized:NormalizedGaeRule",
    "gradient_input": ".gradient_input:GradientInputRule",
    "last_layer": ".rollout:LastLayerAttentionRule",
    "rollout": ".rollout:RolloutRule",
}
_REGISTERED: dict[str, type[Rule]] = {}


def available_rules() -> tuple[str, ...]:
    """Names that `relevance(rule=…)` takes, sorted."""
    return tuple(sorted({*_BUILT_IN, *_REGISTERED}))


def register_rule(name: str) -> Callable[[RuleClass], RuleClass]:
    """Class decorator that makes a `Rule` available under `name`.

    Raises:
        TypeError: The decorated object is not a subclass of `Rule`.
        ValueError: Another rule has that name already.
    """

    def register(cls: RuleClass) -> RuleClass:
        if not (isinstance(cls, type) and issubclass(cls, Rule)):
            raise TypeError(f"register_rule({name!r}) takes a subclass of Rule, not {cls!r}.")
        known = _REGISTERED.get(name)
        # A notebook cell that is run again defines the same class anew: let it replace itself.
        redefined = known is not None and (known.__module__, known.__qualname__) == (
            cls.__module__,
            cls.__qualname__,
        )
        if name in _BUILT_IN or (known is not None and not redefined):
            raise ValueError(f"A rule named {name!r} exists already: choose another name.")
        _REGISTERED[name] = cls
        return cls

    return register


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """Make the rule of that name.

    Raises:
        ValueError: No rule has that name, or it does not take one of the options.
    """
    rule_class = _REGISTERED.get(name)
    if rule_class is None and name in _BUILT_IN:
        module, class_name = _BUILT_IN[name].split(":")
        rule_class = getattr(import_module(module, __package__), class_name)
    if rule_class is None:
        raise ValueError(
            f"There is no rule named {name!r}: choose one of {', '.join(available_rules())}, or add "
            "your own with hf_token_compress.relevance.register_rule."
        )
    accepted = set(inspect.signature(rule_class).parameters)
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise ValueError(
            f"Rule {name!r} does not take the option(s) {', '.join(unknown)}: it takes "
            f"{', '.join(sorted(accepted)) or 'none'}."
        )
    return rule_class(**options)
