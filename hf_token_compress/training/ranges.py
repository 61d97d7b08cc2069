"""Which numbers an option may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
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
