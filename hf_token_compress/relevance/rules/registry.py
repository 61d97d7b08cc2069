"""Names of rules: the built-in rows, and those that users add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from ...named_classes import build_named, check_registration
from .base import Rule

RuleSpec: TypeAlias = "Rule | str | Mapping[str, Any]"
RuleClass = TypeVar("RuleClass", bound=type[Rule])

DEFAULT_RULE = "edges_absolute"
"""The rule whose removal curves were best on the trained tiny model (docs/relevance.md)."""

_BUILT_IN = {
    "best_of": ".best_of:BestOfRule",
    "edges_absolute": ".edges:AbsoluteEdgesRule",
    "edges_net": ".edges:NetEdgesRule",
    "edges_positive": ".edges:PositiveEdgesRule",
    "gae": ".gae:GaeRule",
    "gae_absolute": ".gae:AbsoluteGaeRule",
    "gae_normalized": ".normalized:NormalizedGaeRule",
    "gradient_input": ".gradient_input:GradientInputRule",
    "last_layer": ".rollout:LastLayerAttentionRule",
    "occlusion": ".occlusion:OcclusionRule",
    "recursive": ".recursive:RecursiveRule",
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
        check_registration(cls, name, base=Rule, built_in=_BUILT_IN, registered=_REGISTERED)
        _REGISTERED[name] = cls
        return cls

    return register


def as_rule(rule: RuleSpec) -> Rule:
    """A rule from itself, its name, or a mapping of its name under "rule" and its options.

    Raises:
        ValueError: No rule has that name, or it does not take one of the options.
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        return build_rule(rule, {})
    options = dict(rule)
    return build_rule(options.pop("rule", ""), options)


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """Make the rule of that name.

    Raises:
        ValueError: No rule has that name, or it does not take one of the options.
    """
    rule: Rule = build_named(
        name,
        options,
        base=Rule,
        built_in=_BUILT_IN,
        registered=_REGISTERED,
        package=__package__,
    )
    return rule
