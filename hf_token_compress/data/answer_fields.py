"""Questions and answers in the forms in which data sets hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .choices import as_text, is_missing, right_choice

_ASKING, _ANSWERING = ("human", "user"), ("gpt", "assistant")
_PLACEHOLDER = re.compile(r"\s*<(?:image|video)>\s*")


def read_question(value: Any) -> tuple[str, Any]:
    """The question and, if the value is a conversation, its answer.

    Args:
        value: Text; or a conversation, of which the first turn is asked: a list of dicts with the
            keys "from" and "value", or "role" and "content". The words "<image>" and "<video>"
            are left out.

    Raises:
        ValueError: There is no question.
    """
    answer = None
    if isinstance(value, list):
        turns = [_turn(item) for item in value]
        asked = [index for index, (role, _) in enumerate(turns) if role in _ASKING]
        if not asked:
            raise ValueError("the conversation of the sample has no question")
        following = turns[asked[0] + 1 : asked[0] + 2]
        value = turns[asked[0]][1]
        answer = next((text for role, text in following if role in _ANSWERING), None)
    if not isinstance(value, str):
        raise ValueError("the sample has no question")
    question = _PLACEHOLDER.sub(" ", value) if "<" in value else value
    if not question.strip():
        raise ValueError("the sample has no question")
    return question if question == value else question.strip(), answer


def read_answers(value: Any, choices: Sequence[str]) -> tuple[str, ...]:
    """The right answers, each once; empty if they are unknown.

    Args:
        value: Text, a number, a list of these, or of dicts with the key "answer"; or a dict with
            the list "answer" or "text".
        choices: The choices of a multiple-choice question, one of which the answer names.

    Raises:
        ValueError: The value is something else, or none of the choices.
    """
    if isinstance(value, Mapping):
        value = _inner(value)
    if isinstance(value, list | tuple):
        found = [_inner(item) if isinstance(item, Mapping) else item for item in value]
        items = [item for item in found if not is_missing(item)]
    else:
        items = [] if value is None else [value]
    for item in items:
        if not isinstance(item, str | int | float):
            raise ValueError(f"an answer must be text or a number, not {type(item).__name__}")
    if choices:
        items = [item for item in items if not is_missing(item)]
        return tuple(dict.fromkeys(right_choice(item, choices) for item in items))
    return tuple(dict.fromkeys(map(as_text, items)))


def _turn(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, Mapping):
        raise ValueError("the conversation of the sample must be a list of objects")
    return item.get("from", item.get("role")), item.get("value", item.get("content"))


def _inner(item: Mapping[str, Any]) -> Any:
    for key in ("answer", "text"):
        if key in item:
            return item[key]
    raise ValueError(f"an answer has the keys {', '.join(map(str, item))}: it needs 'answer'")
