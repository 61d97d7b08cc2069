"""Relevance: which visual tokens an answer depends on, in the memory of one backward pass."""

from .explain import RelevanceReport, SampleRelevance, Targets, relevance
from .faithfulness import FaithfulnessReport, RemovalCurve, SampleFaithfulness, faithfulness
from .rules import DEFAULT_RULE, PassRule, PropagationRule, Rule, available_rules, register_rule

__all__ = [
    "DEFAULT_RULE",
    "FaithfulnessReport",
    "PassRule",
    "PropagationRule",
    "RelevanceReport",
    "RemovalCurve",
    "Rule",
    "SampleFaithfulness",
    "SampleRelevance",
    "Targets",
    "available_rules",
    "faithfulness",
    "register_rule",
    "relevance",
]
