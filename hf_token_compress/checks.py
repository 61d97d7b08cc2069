"""How an option is checked: one wording for each kind of check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import NamedTuple


class Range(NamedTuple):
    """Some of the finite numbers.

    Attributes:
        words: Where they lie, as in "must be at least 0".
        holds: Whether a number is one of them; False of NaN.
    """

    words: str
    holds: Callable[[float], bool]


POSITIVE = Range("above 0", lambda value: value > 0.0)
NOT_NEGATIVE = Range("at least 0", lambda value: value >= 0.0)
SHARE = Range("in [0, 1]", lambda value: 0.0 <= value <= 1.0)
SHARE_NOT_ALL = Range("in [0, 1)", lambda value: 0.0 <= value < 1.0)
SHARE_OF_BOTH = Range("in (0, 1)", lambda value: 0.0 < value < 1.0)


def check_number(name: str, value: object, allowed: Range) -> None:
    """Raise unless `value` is a finite number of that range.

    Raises:
        TypeError: It is no number.
        ValueError: It is infinite, NaN, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
    if math.isinf(value):
        raise ValueError(f"{name} must be finite, but it is {value}.")
    if not allowed.holds(float(value)):
        raise ValueError(f"{name} must be {allowed.words}, but it is {value}.")


def check_share(name: str, value: object) -> None:
    """Raise unless `value` is a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in (0, 1], not {type(value).__name__}.")
    if not 0.0 < float(value) <= 1.0:
        raise ValueError(f"{name} must be in (0, 1], but it is {value}.")


def check_count(name: str, value: object, *, at_least: int) -> None:
    """Raise unless `value` is a whole number of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}.")
    if int(value) < at_least:
        raise ValueError(f"{name} must be at least {at_least}, but it is {value}.")


def check_flag(name: str, value: object) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}.")


def check_keyword_arguments(name: str, value: object) -> None:
    """Raise unless `value` is a mapping."""
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a dict of keyword arguments, not {kind}.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        allowed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {allowed}, but it is {value!r}.")
