"""How answers are scored."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from errors import one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_token_compress.data.choices import bare_answer
from hf_token_compress.data.metrics import METRICS, MetricName, is_right, score_answer
from hf_token_compress.data.sample import Sample

ANIMALS = ("dog", "cat", "cat house", "42")


def asked(*answers: str, choices: tuple[str, ...] = ()) -> Sample:
    return Sample("image", (), "?", answers[0], other_answers=answers[1:], choices=choices)


@pytest.mark.parametrize(
    ("metric", "answer", "right", "score"),
    [
        ("exact", "Cat.", ["cat"], 1),
        ("exact", "a cat", ["cat"], 0),
        ("exact", "tabby", ["cat", "Tabby"], 1),
        ("exact", "", [""], 0),
        ("contains", "a cat", ["Cat"], 1),
        ("contains", "cat", ["a cat"], 0),
        ("contains", "a cat", [""], 0),
        ("contains", "a cat", [" . "], 0),
        # One edit in 6 characters; 3 in 7; 2 in 4, which is not below the threshold.
        ("anls", "Colour", ["color"], 5 / 6),
        ("anls", "kitten", ["sitting"], 4 / 7),
        ("anls", "cats", ["cubs"], 0),
        ("anls", "cat", ["cot", "cat "], 1),
        ("anls", "12  June", ["12 june"], 1),
        ("anls", "", ["x"], 0),
        # 5 % of 20 is 1.
        ("relaxed_accuracy", "21", ["20"], 1),
        ("relaxed_accuracy", "21.01", ["20"], 0),
        ("relaxed_accuracy", "-19", ["-20"], 1),
        ("relaxed_accuracy", "19", ["-20"], 0),
        ("relaxed_accuracy", "10.4%", ["10 %"], 1),
        ("relaxed_accuracy", "0.1", ["10%"], 1),
        ("relaxed_accuracy", "10", ["10%"], 0),
        ("relaxed_accuracy", "0.0", ["0"], 1),
        ("relaxed_accuracy", "0.01", ["0"], 0),
        ("relaxed_accuracy", "Yes.", ["yes"], 1),
        ("relaxed_accuracy", "about 20", ["20"], 0),
        ("relaxed_accuracy", "nan", ["nan"], 1),
        ("relaxed_accuracy", "2.1e1", ["inf", "20"], 1),
    ],
)
def test_scores_by_hand(metric: Any, answer: str, right: list[str], score: float) -> None:
    assert score_answer(answer, asked(*right), metric) == pytest.approx(score)
    assert is_right(answer, asked(*right), metric) is (score >= 0.5)


@pytest.mark.parametrize(
    "answer",
    [
        *("B", "b", "(b)", "B.", "B)", "(B) cat", "B. cat", "b: a dog", "cat", " Cat. "),
        *("The answer is B", "The answer is (b).", "Answer: B", "Option B is right."),
        *("The correct choice is B, the cat.", "It is a cat.", "**B**", "Answer: **B**"),
    ],
)
def test_answers_that_name_the_second_choice(answer: str) -> None:
    assert score_answer(answer, asked("cat", choices=ANIMALS)) == 1.0
    assert score_answer(answer, asked("dog", choices=ANIMALS)) == 0.0
    assert score_answer(answer, asked("dog", "cat", choices=ANIMALS)) == 1.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It is a cat house.", "cat house"),
        ("The answer is A.", "dog"),
        ("The answer is A cat", "cat"),
        ("A dog", "dog"),
        ("E", None),
        ("a dog or a cat", None),
        ("concatenated", None),
        ("", None),
    ],
)
def test_articles_words_and_answers_that_name_no_choice(answer: str, right: str | None) -> None:
    scores = [score_answer(answer, asked(choice, choices=ANIMALS)) for choice in ANIMALS]
    assert scores == [float(choice == right) for choice in ANIMALS]


def test_every_metric_has_a_name_that_options_take() -> None:
    assert {"auto", *METRICS} == set(get_args(MetricName))


def test_a_function_scores_every_right_answer() -> None:
    def spelt(answer: str, right: str) -> bool:
        return {"three": "3"}.get(right) == answer

    assert is_right("3", asked("two", "three"), spelt)
    assert not is_right("2", asked("two", "three"), spelt)


def test_samples_that_a_metric_cannot_score() -> None:
    with one_sentence(ValueError, "without an answer"):
        score_answer("x", Sample("image", (), "?"))
    with one_sentence(ValueError, "metric choice needs choices"):
        score_answer("x", asked("x"), "choice")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ["A", "b.", "(C)", "5%", "5.0", "-0", "1e400", "The answer is B", "cat", "cats"]
)
ANSWERS = st.lists(TEXT.filter(lambda text: bare_answer(text) != ""), min_size=2, max_size=4)


@given(ANSWERS, TEXT, st.sampled_from(sorted(METRICS)))
@settings(max_examples=60, deadline=None)
def test_scores_are_in_range_and_more_right_answers_never_lower_them(
    answers: list[str], answer: str, metric: Any
) -> None:
    def score(given: str, *right: str) -> float:
        return score_answer(given, asked(*right, choices=tuple(answers)), metric)

    assert score(answers[0], answers[0]) == 1.0
    assert 0.0 <= score(answer, answers[0]) <= score(answer, *answers) <= 1.0
