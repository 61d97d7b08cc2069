"""The names of rules: built-in ones, and those that users register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from ...config import DEFAULT_RULE as DEFAULT_RULE
from ...registry import Registry
from .base import Rule

RuleSpec: TypeAlias = "Rule | str | Mapping[str, Any]"
RuleClass = TypeVar("RuleClass", bound=type[Rule])

RULES: Registry[Rule] = Registry(
    "rule",
    f"{__package__}.base:Rule",
    {
        "best_of": f"{__package__}.best_of:BestOfRule",
        "edges_absolute": f"{__package__}.edges:AbsoluteEdgesRule",
        "edges_net": f"{__package__}.edges:NetEdgesRule",
        "edges_positive": f"{__package__}.edges:PositiveEdgesRule",
        "gae": f"{__package__}.gae:GaeRule",
        "gae_absolute": f"{__package__}.gae:AbsoluteGaeRule",
        "gae_normalized": f"{__package__}.gae:NormalizedGaeRule",
        "gradient_input": f"{__package__}.gradient_input:GradientInputRule",
        "last_layer": f"{__package__}.rollout:LastLayerAttentionRule",
        "occlusion": f"{__package__}.occlusion:OcclusionRule",
        "recursive": f"{__package__}.recursive:RecursiveRule",
        "rollout": f"{__package__}.rollout:RolloutRule",
    },
)


def available_rules() -> tuple[str, ...]:
    """The names that `relevance(rule=…)` accepts, sorted."""
    return RULES.names()


def register_rule(name: str) -> Callable[[RuleClass], RuleClass]:
    """Class decorator that makes a `Rule` available under `name`.

    Raises:
        TypeError: The decorated object is not a subclass of `Rule`.
        ValueError: The name is taken.
    """
    return RULES.decorator(name)


def as_rule(rule: RuleSpec) -> Rule:
    """A rule from itself, its name, or a mapping of its name under "rule" and its options."""
    if isinstance(rule, Rule):
        return rule
    options = {"rule": rule} if isinstance(rule, str) else dict(rule)
    return build_rule(options.pop("rule", ""), options)


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """The rule of that name; `ValueError` if there is none, or it does not take an option."""
    return RULES.build(name, options)
