"""Relevance rules: how much an answer depends on each token before it, one method per file."""

from .base import PassRule, PropagationRule, Rule
from .registry import DEFAULT_RULE, available_rules, build_rule, register_rule

__all__ = [
    "DEFAULT_RULE",
    "PassRule",
    "PropagationRule",
    "Rule",
    "available_rules",
    "build_rule",
    "register_rule",
]
