"""Multiple choice: how choices are read from data, shown to a model, and named."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

CHOICE_INSTRUCTION = "Answer with the letter of the right choice."

_LABELLED = re.compile(r"\(?([A-Z])[.):]\s*(?=\S)")


def bare_answer(text: str) -> str:
    """An answer as it is compared: without case, outer spaces and a full stop."""
    return text.strip().rstrip(".").casefold()


def choices_prompt(question: str, choices: Sequence[str], suffix: str | None = None) -> str:
    """What a model is asked: the question, a line for each choice, and what to answer with.

    Args:
        question: The question.
        choices: The texts of the choices, which get the letters A, B, C, …; may be empty.
        suffix: The last line; by default, where there are choices, `CHOICE_INSTRUCTION`.
    """
    lettered = (f"{ascii_uppercase[index]}. {text}" for index, text in enumerate(choices))
    lines = [question, *lettered]
    if suffix is None and choices:
        suffix = CHOICE_INSTRUCTION
    return "\n".join(lines if suffix is None else [*lines, suffix])


def named_choice(text: str, choices: Sequence[str]) -> int | None:
    """The first choice with that text, compared as in `bare_answer`; None if there is none."""
    bare = [bare_answer(item) for item in choices]
    return bare.index(bare_answer(text)) if bare_answer(text) in bare else None


def letter_index(letter: str, choices: Sequence[str]) -> int | None:
    """The choice with that letter, counted from 0; None if there is none."""
    index = ascii_uppercase.find(letter.upper())
    return index if 0 <= index < len(choices) else None


def read_choices(value: Any) -> tuple[str, ...]:
    """The texts of choices as data sets write them, without letters before them.

    Args:
        value: A list, possibly with empty places at its end; a dict with the list "text"; or a list
            that was written as text. None and an empty list are no choices.

    Raises:
        ValueError: It is something else, a choice is empty, or there are more than 26.
    """
    if isinstance(value, Mapping):
        if "text" not in value:
            raise ValueError(
                f"its choices are an object with the keys {', '.join(map(str, value))}: give a list"
            )
        value = value["text"]
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (SyntaxError, ValueError):
            raise ValueError("its choices are text, not a list") from None
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"its choices must be a list, not {type(value).__name__}")
    texts = ["" if is_missing(item) else as_text(item).strip() for item in value]
    while texts and not texts[-1]:
        texts.pop()
    if "" in texts:
        raise ValueError(f"its choice {texts.index('') + 1} is empty")
    if len(texts) > len(ascii_uppercase):
        raise ValueError(f"it has {len(texts)} choices, and there are only 26 letters for them")
    labels = [_LABELLED.match(text) for text in texts]
    if all(found and found[1] == ascii_uppercase[index] for index, found in enumerate(labels)):
        texts = [text[found.end() :] for text, found in zip(texts, labels, strict=True) if found]
    return tuple(texts)


def right_choice(answer: Any, choices: Sequence[str]) -> str:
    """The text of the choice that an answer in a data set names.

    A number counts the choices from 0. Text is the text of a choice, or else its letter, with or
    without the text after it, or else such a number.

    Raises:
        ValueError: It names none of the choices, or one by its letter and another by its text.
    """
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    found: int | None
    if isinstance(answer, int) and not isinstance(answer, bool):
        found = answer
    else:
        text = str(answer).strip()
        by_text = named_choice(text, choices)
        by_letter = _letter(text, choices)
        if by_text is not None and by_letter not in (None, by_text):
            raise ValueError(
                f"its answer {text!r} is the letter of one choice and the text of another: give "
                "its number, counted from 0"
            )
        found = by_letter if by_text is None else by_text
        if found is None and text.isdecimal():
            found = int(text)
    if found is None or not 0 <= found < len(choices):
        raise ValueError(
            f"its answer {answer!r} is none of its {len(choices)} choices: give the letter, the "
            "number from 0, or the text of one"
        )
    return choices[found]


def as_text(value: str | float) -> str:
    """A value of a data set as text, whole numbers without ".0": tables with gaps add it."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def is_missing(value: Any) -> bool:
    """Whether a value of a data set is empty: None, NaN, or blank text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _letter(text: str, choices: Sequence[str]) -> int | None:
    """The choice whose letter the text is, alone, in brackets, or before the choice's text."""
    bare = text.strip("(). ")
    label = _LABELLED.match(text)
    if label and bare_answer(text[label.end() :]) in map(bare_answer, choices):
        bare = label[1]
    return letter_index(bare, choices) if len(bare) == 1 else None
