"""When an answer counts as right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Match = Literal["exact", "contains"] | Callable[[str, str], bool]
"""How a given answer is compared with the right one: (given, right) → whether it is right."""


def is_right(given: str, right: str, match: Match = "exact") -> bool:
    """Whether a given answer counts as right.

    Args:
        given: The model's answer.
        right: The right answer.
        match: "exact" compares the two without case, outer spaces and a full stop; "contains"
            looks for the right answer in the given one; a function decides by itself.
    """
    if callable(match):
        return bool(match(given, right))
    given, right = (text.strip().rstrip(".").casefold() for text in (given, right))
    return right in given if match == "contains" else given == right
