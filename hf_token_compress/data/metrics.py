"""How an answer is scored against the right ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .choices import bare_answer, letter_index, named_choice
from .sample import Sample

MetricName = Literal["auto", "exact", "contains", "anls", "choice", "relaxed_accuracy"]
MetricOption = MetricName | Callable[[str, str], float]
"""A metric by name, or a function: (given, right) → a score in [0, 1], or whether it is right."""

RIGHT = 0.5
"""Answers with at least this score count as right."""

_ANLS_THRESHOLD = 0.5
_TOLERANCE = 0.05
# "a" and "I" are words, too.
_SENTENCE = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+is)?\s*:?\s*"
    r"(?:\(([A-Za-z])\)|([B-HJ-Z])\b|([AI])(?=\s*(?:[.,:;]|$)))"
)
_LABEL = re.compile(r"\(?([A-Za-z])(?:\)?\s*$|[.):](?=\s|$))")


@dataclass(frozen=True)
class Metric:
    """One way to score an answer.

    Attributes:
        name: Its name.
        function: (given, right answers, choices) → a score in [0, 1].
        needs: What a sample must have for it: right answers, choices with a right one, or right
            answers of which some are numbers.
        help: What it does, in words.
    """

    name: str
    function: Callable[[str, Sequence[str], Sequence[str]], float]
    needs: Literal["answers", "choices", "numbers"]
    help: str


def exact(given: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """1 if the answer equals a right one but for case, outer spaces and a full stop.

    Nothing matches an empty answer.
    """
    right = {bare_answer(answer) for answer in answers} - {""}
    return float(bare_answer(given) in right)


def contains(given: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """1 if a right answer occurs in the given one, compared as in `exact`."""
    text = bare_answer(given)
    return float(any(right in text for right in map(bare_answer, answers) if right))


def anls(given: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Average normalized Levenshtein similarity: 1 less the share of characters to edit.

    It is 0 where half of the characters or more must be edited. Case and extra spaces do not count.

    Source: arXiv 1907.00490, equation 1, with its threshold of 0.5.
    """
    return max((_similarity(given, right) for right in answers), default=0.0)


def choice(given: str, answers: Sequence[str], choices: Sequence[str]) -> float:
    """1 if the answer names a right choice, by its letter or its text.

    "B", "(b)", "B. cat", "The answer is B" and "It is a cat" all name the choice "cat" with the
    letter B. An answer that names several choices, or none, is wrong.
    """
    found = chosen(given, choices)
    return 0.0 if found is None else exact(choices[found], answers)


def relaxed_accuracy(given: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """1 if the answer is a number within 5 % of a right one; other texts as in `exact`.

    "12 %" is the number 0.12.

    Source: arXiv 2203.10244, section 4.2; percent signs as in the evaluation of Pix2Struct
    (arXiv 2210.03347).
    """
    return max((_relaxed(given, right) for right in answers), default=0.0)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact", exact, "answers", "equal but for case, outer spaces and a full stop"),
        Metric("contains", contains, "answers", "the right answer occurs in it"),
        Metric("anls", anls, "answers", "similarity of the characters (DocVQA)"),
        Metric("choice", choice, "choices", "the letter or the text of the right choice"),
        Metric(
            "relaxed_accuracy",
            relaxed_accuracy,
            "numbers",
            "numbers within 5 % (ChartQA), or exact",
        ),
    )
}
"""All metrics, by name. "auto" is none of them: it is `choice` or `exact`, as the sample needs."""


def score_answer(given: str, sample: Sample, metric: MetricOption = "auto") -> float:
    """Score a model's answer.

    Args:
        given: The answer.
        sample: The sample, with right answers; the best score over these counts.
        metric: Name or function. "auto" is `choice` for a sample with choices, else `exact`.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: The sample has no answer, or no choices where the metric needs them.
    """
    if not sample.answers:
        raise ValueError("A sample without an answer cannot be scored.")
    if callable(metric):
        return max(float(metric(given, right)) for right in sample.answers)
    if metric == "auto":
        metric = "choice" if sample.choices else "exact"
    row = METRICS[metric]
    if row.needs == "choices" and not sample.choices:
        raise ValueError(f"The metric {metric} needs choices, but the sample has none.")
    return row.function(given, sample.answers, sample.choices)


def is_right(given: str, sample: Sample, metric: MetricOption = "auto") -> bool:
    """Whether an answer counts as right: its score is at least 0.5. Arguments: `score_answer`."""
    return score_answer(given, sample, metric) >= RIGHT


def chosen(given: str, choices: Sequence[str]) -> int | None:
    """Which choice an answer names, counted from 0; None if it names none or several."""
    given = given.replace("**", "")  # Markdown's bold type
    if (found := named_choice(given, choices)) is not None:
        return found
    for pattern, text in ((_LABEL.match, given.strip()), (_SENTENCE.search, given)):
        if match := pattern(text):
            letter = next(group for group in match.groups() if group)
            if (index := letter_index(letter, choices)) is not None:
                return index
    text = bare_answer(given)
    found_texts = {bare for bare in map(bare_answer, choices) if bare and _has_words(text, bare)}
    # "cat" inside "cat house" is not an answer of its own.
    longest = {
        bare
        for bare in found_texts
        if not any(bare != other and _has_words(other, bare) for other in found_texts)
    }
    if len(longest) != 1:
        return None
    return [bare_answer(item) for item in choices].index(longest.pop())


def number_of(text: str) -> float | None:
    """The finite number that a text is, "12 %" as 0.12; None if it is none."""
    text = text.strip().rstrip(".")
    bare = text.removesuffix("%").strip()
    try:
        number = float(bare)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return number / 100 if text.endswith("%") else number


def _has_words(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _relaxed(given: str, right: str) -> float:
    wanted, found = number_of(right), number_of(given)
    if wanted is None or found is None:
        return exact(given, [right])
    return float(abs(found - wanted) <= _TOLERANCE * abs(wanted))


def _similarity(given: str, right: str) -> float:
    first, second = (" ".join(text.casefold().split()) for text in (given, right))
    if not second:
        return 0.0
    distance = _edits(first, second) / max(len(first), len(second))
    return 1.0 - distance if distance < _ANLS_THRESHOLD else 0.0


def _edits(first: str, second: str) -> int:
    """Levenshtein distance."""
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            replaced = above[column - 1] + (letter != other)
            current.append(min(replaced, above[column] + 1, current[-1] + 1))
        above = current
    return above[-1]
