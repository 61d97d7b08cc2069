"""When an answer counts as right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Match = Literal["exact", "contains"] | Callable[[str, str], bool]
"""How a given answer is compared with the right one: (given, right) → whether it is right."""


def bare_answer(text: str) -> str:
    """An answer as it is compared: without case, outer spaces and a full stop."""
    return text.strip().rstrip(".").casefold()


def is_right(given: str, right: str, match: Match = "exact") -> bool:
    """Whether a given answer counts as right.

    Args:
        given: The model's answer.
        right: The right answer.
        match: "exact" compares the two without case, outer spaces and a full stop; "contains"
            looks for the right answer in the given one; a function decides by itself. Nothing
            matches an empty answer, unless a function says so.
    """
    if callable(match):
        return bool(match(given, right))
    given, right = bare_answer(given), bare_answer(right)
    if not right:
        return False
    return right in given if match == "contains" else given == right
