"""The comparison of relevance rules, on the trained tiny model."""

from __future__ import annotations

from hf_token_compress import load_tiny
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.relevance import DEFAULT_RULE
from lab.benchmarks.rules import compare_rules, rules_markdown


def test_the_default_rule_is_more_faithful_than_attention_alone() -> None:
    samples = scene_samples(["place", "colour", "letter", "where"], 5, seed=8000)
    rules = [DEFAULT_RULE, "rollout", "last_layer"]
    found = compare_rules(*load_tiny("qwen2-vl"), samples, rules, retention_ratios=[0.5, 0.05])
    default, *others = found
    for other in others:
        assert default.least_first > other.least_first, other.name
    assert default.least_first > default.random > default.most_first
    assert set(default.same) == {"place", "colour", "letter", "where"}
    table = rules_markdown(found, 0.05).splitlines()
    assert len(table) == 2 + len(rules) + 1
    assert all(line.count("|") == table[0].count("|") for line in table)
