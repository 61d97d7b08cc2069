"""Relevance: which visual tokens an answer rested on, in the memory of one backward pass."""

from .explain import DEFAULT_RULE, RelevanceReport, SampleRelevance, relevance
from .rules import PropagationRule, Rule, available_rules, propagate, register_rule
from .text import token_relevance

__all__ = [
    "DEFAULT_RULE",
    "PropagationRule",
    "RelevanceReport",
    "Rule",
    "SampleRelevance",
    "available_rules",
    "propagate",
    "register_rule",
    "relevance",
    "token_relevance",
]
