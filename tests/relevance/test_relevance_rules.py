"""What single rules compute, their registry, recursion, best-of and removal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import whole_position_ids
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    TWO_IMAGES,
    make_inputs,
    tiny_model,
)
from torch import Tensor

from hf_token_compress.relevance import (
    PropagationRule,
    Rule,
    available_rules,
    faithfulness,
    register_rule,
    relevance,
)
from hf_token_compress.relevance.rules import registry
from hf_token_compress.relevance.rules.edges import NetEdgesRule

pytestmark = pytest.mark.core

BATCH = (ONE_IMAGE, TWO_IMAGES, IMAGE_AND_VIDEO)
ANSWERS = [torch.tensor(ids) for ids in ([3], [5, 7, 9], [11, 2])]


def explain(rule: str, **options: Any) -> Any:
    return relevance(tiny_model(), make_inputs(BATCH), answer_ids=ANSWERS, rule=rule, **options)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test end with it."""
    monkeypatch.setattr(registry.RULES, "registered", {})


def test_attention_rules_equal_the_maps() -> None:
    inputs = make_inputs([ONE_IMAGE])
    visual = inputs["mm_token_type_ids"][0] > 0
    with torch.no_grad():
        attentions = tiny_model("eager")(**inputs, output_attentions=True).attentions
    found = {rule: explain(rule).samples[0].scores for rule in ("last_layer", "rollout")}
    last = attentions[-1][0].mean(0)[-1, visual]
    torch.testing.assert_close(found["last_layer"], last, rtol=1e-5, atol=1e-7)
    matrix = torch.eye(len(visual))
    for attention in attentions:
        matrix = (matrix + attention[0].mean(0) @ matrix) / 2
    torch.testing.assert_close(found["rollout"], matrix[-1, visual], rtol=1e-5, atol=1e-7)


def test_gradient_times_input_is_the_slope_of_scaling_a_feature() -> None:
    """d/ds of the logit, with the feature scaled by s, by finite differences."""
    inputs = make_inputs([ONE_IMAGE], dtype=torch.float64)
    model = tiny_model(dtype=torch.float64)
    found = relevance(model, inputs, answer_ids=[torch.tensor([3])], rule="gradient_input")
    positions = whole_position_ids(model, inputs)
    pixels = {name: inputs.pop(name) for name in ("pixel_values", "image_grid_thw")}
    with torch.no_grad():
        output = model.get_image_features(*pixels.values(), return_dict=True)
        step = 3e-3

        def logit(token: int, scale: float) -> float:
            scaled = copy.copy(output)
            features = output.pooler_output[0].clone()
            features[token] *= scale
            scaled.pooler_output = [features]
            given = {**inputs, "position_ids": positions, "mm_encoder_outputs": {"image": scaled}}
            return float(model(**given).logits[0, -1, 3])

        for token in (0, 17, 47):
            slope = (logit(token, 1 + step) - logit(token, 1 - step)) / (2 * step)
            assert float(found.samples[0].scores[token]) == pytest.approx(abs(slope), rel=5e-3)


def hidden_log_probability(model: Any, inputs: dict[str, Tensor], hidden: int | None) -> float:
    """Log-probability of the answer 3 with one position hidden by the stock model's own mask."""
    mask = inputs["attention_mask"].clone()
    positions = whole_position_ids(model, inputs)
    if hidden is not None:
        mask[0, hidden] = 0
    with torch.no_grad():
        logits = model(**{**inputs, "attention_mask": mask}, position_ids=positions).logits
    return float(logits[0, -1].log_softmax(-1)[3])


def test_occlusion_is_the_loss_when_a_token_is_hidden() -> None:
    inputs = make_inputs([ONE_IMAGE])
    model = tiny_model()
    found = relevance(
        model,
        inputs,
        answer_ids=[torch.tensor([3])],
        rule="occlusion",
        rule_options={"batch_size": 7},
    )
    positions = (inputs["mm_token_type_ids"][0] > 0).nonzero().flatten().tolist()
    whole = hidden_log_probability(model, inputs, None)
    for token in (0, 13, 47):
        lost = whole - hidden_log_probability(model, inputs, positions[token])
        assert float(found.samples[0].scores[token]) == pytest.approx(lost, abs=1e-5)


def test_a_sum_is_explained_as_the_sum_of_what_it_sums() -> None:
    """Signed first-order effects add up over targets."""

    class Signed(PropagationRule):
        def start(self, predicting: Tensor, replay: Any) -> Tensor:
            return replay.attention_mask.to(predicting).expand(predicting.shape)

        def initial_relevance(self, start: Tensor) -> Tensor:
            return torch.zeros_like(start)

        def propagate(self, relevance: Tensor, layer: Any, gradient: Any, start: Tensor) -> Tensor:
            return relevance + layer.propagate(start, gradient, reduction="signed", residual=False)

    registry.RULES.registered["signed"] = Signed
    try:
        whole, parts = explain("signed", targets="sum"), explain("signed")
    finally:
        del registry.RULES.registered["signed"]
    for one, other in zip(whole.samples, parts.samples, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)


def test_log_probability_is_another_target() -> None:
    logit, likely = (
        explain("gae", rule_options={"target": target}).samples[0].scores
        for target in ("logit", "log_probability")
    )
    assert not torch.allclose(logit, likely)


def test_the_margin_is_over_the_strongest_other_token() -> None:
    """The logit of another token is taken off, and so is its gradient."""
    model, inputs = tiny_model(), make_inputs([ONE_IMAGE])

    class SignedSum(NetEdgesRule):
        def explain_pass(self, replay: Any, targets: Tensor) -> Tensor:
            return PropagationRule.explain_pass(self, replay, targets)

    def effect(token: int, target: str) -> Tensor:
        answer = [torch.tensor([token])]
        options = {"rule": "edges_signed_sum", "rule_options": {"target": target}}
        return relevance(model, inputs, answer_ids=answer, **options).samples[0].scores

    registry.RULES.registered["edges_signed_sum"] = SignedSum
    try:
        with torch.no_grad():
            logits = model(**inputs, logits_to_keep=1).logits[0, -1]
        best, second = logits.topk(2).indices.tolist()
        expected = effect(best, "logit") - effect(second, "logit")
        torch.testing.assert_close(effect(best, "margin"), expected, rtol=1e-3, atol=1e-6)
        # The strongest token is itself the rival of every other.
        torch.testing.assert_close(effect(second, "margin"), -expected, rtol=1e-3, atol=1e-6)
    finally:
        del registry.RULES.registered["edges_signed_sum"]


# Recursion and best-of


@pytest.mark.parametrize("until", [0.1, 0.5, 1.0])
def test_recursion_explains_what_is_left(until: float) -> None:
    """The best of the last round are those of an explanation of the prompt that is left."""
    options = {"of": "gae", "drop": 0.3, "until": until}
    found = explain("recursive", rule_options=options)
    for sample in found.samples:
        scores = sample.scores
        last = max(1, round(until * len(scores)))
        share = last / len(scores)
        high = scores >= 1 / share - 1e-4
        assert int(high.sum()) >= last
        assert float(scores.min()) >= 1 - 1e-6
        assert float(scores.max()) == pytest.approx(2 / share, rel=0.5)
    if until == 1.0:
        once = explain("gae")
        for sample, plain in zip(found.samples, once.samples, strict=True):
            if len(sample.answer_ids) == 1:
                assert torch.equal(
                    sample.scores.argsort(stable=True), plain.scores.argsort(stable=True)
                )


def test_the_flag_is_the_rule() -> None:
    flag = explain("gae", recursive=True)
    rule = explain("recursive", rule_options={"of": "gae"})
    for one, other in zip(flag.samples, rule.samples, strict=True):
        assert torch.equal(one.scores, other.scores)


def test_best_of_is_never_worse_than_its_candidates() -> None:
    inputs, model = make_inputs(BATCH), tiny_model()
    candidates = ["gae", "rollout", "gradient_input"]
    ratio = [0.25]

    def kept_log_probability(rule: str, **options: Any) -> Tensor:
        found = relevance(model, inputs, answer_ids=ANSWERS, rule=rule, rule_options=options)
        scores = [sample.scores for sample in found.samples]
        report = faithfulness(model, inputs, scores, answer_ids=ANSWERS, retention_ratios=ratio)
        return torch.stack([s.least_first.log_probabilities[1] for s in report.samples])

    single = torch.stack([kept_log_probability(rule) for rule in candidates])
    best = kept_log_probability("best_of", rules=candidates)
    torch.testing.assert_close(best, single.amax(0))


# Removal


def test_curves_follow_the_removal() -> None:
    inputs, model = make_inputs(BATCH), tiny_model()
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(n, generator=generator) for n in (48, 60, 48)]
    report = faithfulness(model, inputs, scores, answer_ids=ANSWERS, retention_ratios=[0.5, 0.1])
    backward = faithfulness(
        model, inputs, [-item for item in scores], answer_ids=ANSWERS, retention_ratios=[0.5, 0.1]
    )
    for one, other, answer in zip(report.samples, backward.samples, ANSWERS, strict=True):
        assert one.least_first.retention_ratios.tolist() == [1.0, 0.5, 0.1]
        for curve in (one.least_first, one.most_first, one.random):
            assert torch.equal(curve.log_probabilities[:1], one.random.log_probabilities[:1])
            assert (curve.log_probabilities < 0).all()
        torch.testing.assert_close(
            one.least_first.log_probabilities, other.most_first.log_probabilities
        )
        assert torch.equal(one.answer_ids, answer)
    sample = report.samples[0].least_first
    # Trapezoids over (1, 0.5, 0.1).
    a, b, c = sample.log_probabilities.tolist()
    assert sample.area == pytest.approx((0.5 * (a + b) / 2 + 0.4 * (b + c) / 2) / 0.9, rel=1e-5)


def test_a_removed_token_is_hidden_from_the_answer() -> None:
    """One token removed, against the stock model with that token masked."""
    inputs, model = make_inputs([ONE_IMAGE]), tiny_model()
    scores = torch.arange(48.0).flip(0)
    report = faithfulness(
        model, inputs, [scores], answer_ids=[torch.tensor([3])], retention_ratios=[47 / 48]
    )
    last = int((inputs["mm_token_type_ids"][0] > 0).nonzero()[-1])
    expected = hidden_log_probability(model, inputs, last)
    curve = report.samples[0].least_first
    assert float(curve.log_probabilities[1]) == pytest.approx(expected, abs=1e-5)


def test_the_models_own_answer_matches_itself() -> None:
    inputs, model = make_inputs(BATCH), tiny_model()
    model.generation_config.suppress_tokens = None
    scores = [torch.rand(n) for n in (48, 60, 48)]
    report = faithfulness(model, inputs, scores, max_new_tokens=3, retention_ratios=[0.5])
    assert all(bool(sample.random.matches[0]) for sample in report.samples)


# Registry


@pytest.mark.usefixtures("own_registry")
def test_a_users_rule() -> None:
    @register_rule("earlier_is_better")
    class EarlierIsBetter(Rule):
        def __init__(self, sign: float = 1.0) -> None:
            self.sign = sign

        def explain(self, replay: Any, targets: Tensor, keep: Tensor) -> Tensor:
            positions = torch.arange(keep.shape[1], dtype=torch.float32)
            return -self.sign * positions.expand(len(targets), *keep.shape)

    assert "earlier_is_better" in available_rules()
    found = explain("earlier_is_better", rule_options={"sign": -1.0})
    assert all((sample.scores.diff() > 0).all() for sample in found.samples)
    with one_sentence(ValueError, "exists"):
        register_rule("gae")(EarlierIsBetter)
    with one_sentence(TypeError, "subclass of Rule"):
        register_rule("other")(int)


@pytest.mark.parametrize(
    ("rule", "options", "word"),
    [
        ("gea", {}, "gea"),
        ("gae", {"tarhet": 1}, "tarhet"),
        ("best_of", {"rules": []}, "best_of"),
        ("gae", {"target": "logits"}, "target"),
        ("gradient_input", {"target": "odds"}, "target"),
        ("recursive", {"drop": 1.5}, "drop"),
    ],
)
def test_wrong_rules(rule: str, options: dict[str, Any], word: str) -> None:
    with one_sentence(ValueError, word):
        explain(rule, rule_options=options)
