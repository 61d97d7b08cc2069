"""One table of the built-in rules; every rule passes the same equalities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from matrix import one_at_a_time
from tiny_models import (
    FAMILIES,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    TWO_IMAGES,
    TWO_TURNS,
    make_inputs,
    tiny_model,
)
from torch import Tensor

from hf_token_compress.relevance import RelevanceReport, available_rules, relevance

pytestmark = pytest.mark.core

PROMPTS = (ONE_IMAGE, TWO_TURNS, TWO_IMAGES, IMAGE_AND_VIDEO)
ANSWERS = [torch.tensor(ids) for ids in ([3], [5, 7, 9], [11, 2], [1, 40, 41, 42])]


class RuleCase(NamedTuple):
    """What holds for a rule by definition.

    Attributes:
        additive: The relevance of a sum of targets is the sum of their relevance.
        signed: Scores may be negative.
    """

    additive: bool = False
    signed: bool = False


RULES = {
    "best_of": RuleCase(),
    "edges_absolute": RuleCase(),
    "edges_net": RuleCase(),
    "edges_positive": RuleCase(),
    "gae": RuleCase(),
    "gae_absolute": RuleCase(),
    "gae_normalized": RuleCase(),
    "gradient_input": RuleCase(),
    "last_layer": RuleCase(additive=True),
    "occlusion": RuleCase(additive=True, signed=True),
    "recursive": RuleCase(),
    "rollout": RuleCase(additive=True),
}
ADDITIVE = [rule for rule, case in RULES.items() if case.additive]

every_rule = pytest.mark.parametrize("rule", RULES)
every_rule_and_family = pytest.mark.parametrize(("rule", "family"), one_at_a_time(RULES, FAMILIES))


def explain(
    rule: str, prompts: Sequence[Any], answers: list[Tensor], family: str, **options: Any
) -> RelevanceReport:
    inputs = make_inputs(prompts, family=family, padding_side=options.pop("side", "left"))
    model = tiny_model(family=family)
    return relevance(model, inputs, answer_ids=answers, rule=rule, **options)


@cache
def batch_report(rule: str, family: str) -> RelevanceReport:
    return explain(rule, PROMPTS, ANSWERS, family, return_per_token=True)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Equal within 1e-4 of the largest score: batches change the order of float32 sums."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * scale)


def test_every_built_in_rule_is_in_the_table() -> None:
    assert set(RULES) == set(available_rules())


@every_rule_and_family
def test_there_is_one_finite_score_per_visual_token(rule: str, family: str) -> None:
    report = batch_report(rule, family)
    assert report.rule == rule
    for answer, sample in zip(ANSWERS, report.samples, strict=True):
        count = sum(len(span.positions) for span in sample.visuals)
        assert sample.scores.shape == (count,)
        assert sample.scores.dtype == torch.float32
        assert sample.scores.isfinite().all()
        assert RULES[rule].signed or (sample.scores >= 0).all()
        assert sample.scores.any()
        assert sample.per_token is not None
        assert sample.per_token.shape == (len(answer), count)
        torch.testing.assert_close(sample.per_token.mean(0), sample.scores)
        assert torch.equal(sample.answer_ids, answer)


@every_rule_and_family
def test_alone_equals_in_a_ragged_batch(rule: str, family: str) -> None:
    batch = batch_report(rule, family)
    for prompt, answer, sample in zip(PROMPTS, ANSWERS, batch.samples, strict=True):
        (alone,) = explain(rule, [prompt], [answer], family, return_per_token=True).samples
        assert alone.per_token is not None
        assert sample.per_token is not None
        assert_close(sample.scores, alone.scores)
        assert_close(sample.per_token, alone.per_token)


@every_rule_and_family
def test_left_padding_equals_right_padding(rule: str, family: str) -> None:
    left = batch_report(rule, family)
    right = explain(rule, PROMPTS, ANSWERS, family, side="right")
    for one, other in zip(left.samples, right.samples, strict=True):
        assert_close(one.scores, other.scores)


@every_rule
def test_an_answer_of_one_token_is_its_own_mean_and_sum(rule: str) -> None:
    answers = [torch.tensor([token]) for token in (3, 5, 11, 1)]
    single = explain(rule, PROMPTS, answers, "qwen2_vl", return_per_token=True)
    summed = explain(rule, PROMPTS, answers, "qwen2_vl", targets="sum")
    for one, other in zip(single.samples, summed.samples, strict=True):
        assert one.per_token is not None
        assert torch.equal(one.per_token[0], one.scores)
        assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("rule", ADDITIVE)
def test_a_sum_of_tokens_is_the_sum_of_their_relevance(rule: str) -> None:
    summed = explain(rule, PROMPTS, ANSWERS, "qwen2_vl", targets="sum")
    for sample, parts in zip(summed.samples, batch_report(rule, "qwen2_vl").samples, strict=True):
        assert_close(sample.scores, parts.scores)
