"""How an option is checked: one wording for each kind of check."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

_NOUNS = {bool: "True or False", str: "a string", Mapping: "a dict of keyword arguments"}


def check_number(name: str, value: object, interval: str | None, *, whole: bool = False) -> None:
    """Raise unless `value` is a finite number in an interval.

    Args:
        name: Name of the option.
        value: Its value.
        interval: Such as "(0, 1]" or "[1, inf)"; None for every finite number.
        whole: Whether it must be a whole number.

    Raises:
        TypeError: It is not a number, or not a whole one.
        ValueError: It is outside the interval, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        noun = "whole number" if whole else "number"
        raise TypeError(f"{name} must be a {noun}, not {type(value).__name__}.")
    interval = interval or "(-inf, inf)"
    number: Any = value
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = low <= number if interval.startswith("[") else low < number
    below = number <= high if interval.endswith("]") else number < high
    if not (above and below):
        allowed = describe_interval(interval)
        if math.isinf(number) and not math.isfinite(high):
            allowed = f"finite and {allowed}"
        raise ValueError(f"{name} must be {allowed}, but it is {value}.")


def describe_interval(interval: str) -> str:
    """`"[1, inf)"` → `"at least 1"`, `"(0, inf)"` → `"above 0"`, others → `"in (0, 1]"`."""
    low, _, high = interval[1:-1].partition(", ")
    if high != "inf":
        return f"in {interval}"
    return f"at least {low}" if interval.startswith("[") else f"above {low}"


def check_share(name: str, value: object) -> None:
    """Raise unless `value` is a number in (0, 1], as in `check_number`."""
    check_number(name, value, "(0, 1]")


def check_count(name: str, value: object, *, at_least: int) -> None:
    """Raise unless `value` is a whole number of at least `at_least`, as in `check_number`."""
    check_number(name, value, f"[{at_least}, inf)", whole=True)


def check_type(name: str, value: object, kind: type) -> None:
    """Raise unless `value` is of a kind: bool, str or Mapping."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {_NOUNS[kind]}, not {type(value).__name__}.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        *others, last = map(repr, choices)
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} must be {allowed}, but it is {value!r}.")


def refuse_unknown(what: str, noun: str, names: Iterable[object], known: Iterable[str]) -> None:
    """Raise a ValueError if a name is not a known one; it tells the nearest of these.

    Args:
        what: What takes the names, such as "token_compression".
        noun: What a name is, such as "setting".
        names: Those that were given.
        known: Those that there are.
    """
    known = sorted(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            advice = f"the nearest is {near[0]!r}" if near else f"it takes {', '.join(known)}"
            raise ValueError(
                f"{what} has no {noun} {name!r}: {advice if known else 'it takes none'}."
            )
