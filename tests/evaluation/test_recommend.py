"""The choice among tested settings, and that its bound survives the search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.evaluation.recommend import Measured, least_questions, recommend
from hf_token_compress.evaluation.statistics import loss_upper_bound

RATIOS = (0.75, 0.5, 0.25, 0.1)


def measured(full: np.ndarray, compressed: np.ndarray, ratio: float) -> Measured:
    config = TokenCompressionConfig(retention_ratio=ratio, scorer="random")
    return Measured(config, ratio, full, compressed)


def with_losses(
    full: np.ndarray, losses: Sequence[int], ratios: Sequence[float] = RATIOS
) -> Iterator[Measured]:
    """Settings of which each answers so many questions wrongly that the full model gets right."""
    for lost, ratio in zip(losses, ratios, strict=True):
        compressed = full.copy()
        compressed[np.flatnonzero(full)[:lost]] = 0
        yield measured(full, compressed, ratio)


def test_the_smallest_setting_before_a_failure_is_chosen() -> None:
    full = np.ones(1000)
    # A failure ends a sequence, though a later setting would pass.
    early, late = list(with_losses(full, (0, 30, 0, 0))), list(with_losses(full, (0, 1, 2, 30)))
    found = recommend(full, {"early": early, "late": late}, max_loss=2)
    tested = [(step.scorer, step.config.retention_ratio, step.accepted) for step in found.steps]
    assert tested == [
        ("early", 0.75, True),
        ("early", 0.5, False),
        ("late", 0.75, True),
        ("late", 0.5, True),
        ("late", 0.25, True),
        ("late", 0.1, False),
    ]
    assert found.verdict == "recommended"
    assert found.chosen is found.steps[4]
    # Two scorers share the probability of an error.
    expected = loss_upper_bound(full, late[2].compressed, confidence=0.975)
    assert found.chosen.loss_bound == pytest.approx(expected)
    assert found.chosen.percent_of_full == pytest.approx(99.8)


def test_settings_are_compared_by_the_tokens_they_keep() -> None:
    full = np.ones(1000)
    top_p = Measured(TokenCompressionConfig(retention_ratio=1.0, top_p=0.5), 0.2, full, full)
    found = recommend(
        full, {"ratios": with_losses(full, (0, 0, 0, 50)), "top_p": [top_p]}, max_loss=2
    )
    assert found.chosen is not None
    assert found.chosen.config == top_p.config


def test_no_setting_is_measured_that_decides_nothing() -> None:
    """None after a failure, and none where the questions are too few for any answers."""
    taken: list[float] = []

    def settings(asked: int) -> Iterator[Measured]:
        for setting in with_losses(np.ones(asked), (0, 40, 0, 0)):
            taken.append(setting.config.retention_ratio)
            yield setting

    recommend(np.ones(500), {"random": settings(500)}, max_loss=5)
    assert taken == [0.75, 0.5]
    taken.clear()
    found = recommend(np.ones(50), {"random": settings(50)}, max_loss=1)
    assert (found.verdict, found.chosen, taken) == ("too_few_questions", None, [])
    # The rule of three: about 300 questions without an error for 1 % at 95 %.
    assert 300 < found.questions_needed < 340


@pytest.mark.parametrize(("share", "per_image"), [(1.0, 1), (0.5, 1), (0.5, 4)])
def test_least_questions_are_enough_and_hardly_more_than_enough(
    share: float, per_image: int
) -> None:
    """With these many, an equal model passes; with a twentieth less, it does not."""
    least = least_questions(2, 0.95, mean_score=share, per_image=per_image)
    for factor, enough in ((1.0, True), (0.95, False)):
        images = np.arange(round(factor * least) // per_image + 1)
        full = np.tile([1.0, 1.0, 1.0, 1.0] if share == 1 else [1.0, 0.0, 1.0, 0.0], len(images))
        full = full[: len(images) * per_image]
        bound = loss_upper_bound(full, full, clusters=images.repeat(per_image))
        assert (bound <= 2) is enough, (factor, bound)


def test_inconclusive_data_says_how_many_questions_would_tell() -> None:
    full = np.ones(400)
    (lost,) = with_losses(full, (6,), (0.5,))
    found = recommend(full, {"random": [lost]}, max_loss=2)
    assert found.verdict == "too_few_questions"
    times = found.questions_needed / 400
    assert times > 1
    more = [np.tile(scores, int(times) + 1) for scores in (lost.full, lost.compressed)]
    again = recommend(more[0], {"random": [measured(*more, 0.5)]}, max_loss=2)
    assert again.verdict == "recommended"


def test_a_loss_beyond_the_limit_is_no_matter_of_more_questions() -> None:
    full = np.ones(400)
    found = recommend(full, {"random": with_losses(full, (20, 0, 0, 0))}, max_loss=2)
    assert (found.verdict, found.questions_needed) == ("too_much_lost", None)


def test_bound_holds_after_the_search() -> None:
    """Losses sit at the limit, where a wrong acceptance is likeliest, for several scorers."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        full = (generator.random(300) < 0.9).astype(float)
        sequences: Mapping[str, list[Measured]] = {
            name: [
                measured(full, full * (generator.random(300) >= lost), ratio)
                for ratio, lost in zip(RATIOS, (0.01, 0.051, 0.051, 0.2), strict=True)
            ]
            for name in "abcd"
        }
        chosen = recommend(full, sequences, max_loss=5).chosen
        wrong += chosen is not None and chosen.config.retention_ratio < 0.75
    assert wrong <= 0.05 * 400


def test_a_recommendation_is_json_and_its_setting_can_be_read_back() -> None:
    full = np.ones(1000)
    found = recommend(full, {"random": with_losses(full, (0, 0, 50, 0))}, max_loss=2)
    text = json.loads(json.dumps(found.to_dict()))
    assert text["verdict"] == "recommended"
    assert TokenCompressionConfig.from_dict(text["token_compression"]) == found.chosen.config
    assert [step["chosen"] for step in text["steps"]] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loss": -1}, r"max_loss must be in \(0, 100\), but it is -1"),
        ({"max_loss": 1, "confidence": 1}, r"confidence must be in \[0.5, 1\), but it is 1"),
        ({"max_loss": 1, "sequences": {}}, "no scorer to choose from"),
        ({"max_loss": 1, "full": np.zeros(5)}, "scores 0 on every question"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, object], message: str) -> None:
    chosen = {"full": np.ones(5), "sequences": {"random": []}, **options}
    with pytest.raises(ValueError, match=message):
        recommend(chosen.pop("full"), chosen.pop("sequences"), **chosen)
