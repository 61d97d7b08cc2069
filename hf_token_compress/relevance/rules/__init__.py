"""Rules: how much an answer rests on each token before it. One small file each."""

from .base import PropagationRule, Rule, propagate
from .registry import DEFAULT_RULE, RuleSpec, as_rule, available_rules, build_rule, register_rule

__all__ = [
    "DEFAULT_RULE",
    "PropagationRule",
    "Rule",
    "RuleSpec",
    "as_rule",
    "available_rules",
    "build_rule",
    "propagate",
    "register_rule",
]
