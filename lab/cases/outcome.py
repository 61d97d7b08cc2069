"""How a case ends: by its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

RIGHT, WRONG, SKIPPED = "right", "wrong", "skipped"

STATUS = {0: RIGHT, 1: WRONG, 2: SKIPPED}
"""What each exit status means; any other status is a crash."""

_SHOWN = 12


class Skipped(Exception):  # noqa: N818
    """The case cannot run here; the message says why."""


def report(problems: Callable[[], Iterator[str]]) -> None:
    """Run a case, print what is wrong, and exit.

    Args:
        problems: Yields one line per wrong result. Nothing yielded means that all is right.
    """
    try:
        found = list(problems())
    except Skipped as reason:
        print(reason)
        sys.exit(2)
    for line in found[:_SHOWN]:
        print(line)
    if len(found) > _SHOWN:
        print(f"… and {len(found) - _SHOWN} more")
    sys.exit(1 if found else 0)


def failure(error: BaseException) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
