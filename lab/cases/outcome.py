"""How a case ends: its last line of output and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

RIGHT, WRONG, SKIPPED = "right", "wrong", "skipped"

EXIT_STATUS = {RIGHT: 0, WRONG: 1, SKIPPED: 2}
"""Exit status of each verdict. A case that ends without a verdict has crashed."""

_SHOWN = 12


class Skipped(Exception):  # noqa: N818
    """The case cannot run here; the message says why."""


def report(problems: Callable[[], Iterator[str]]) -> None:
    """Run a case, print what is wrong and then the verdict, and exit.

    Args:
        problems: Yields one line per wrong result. Nothing yielded means that all is right.
    """
    try:
        found = list(problems())
    except Skipped as reason:
        print(reason)
        _end(SKIPPED)
    for line in found[:_SHOWN]:
        print(line)
    if len(found) > _SHOWN:
        print(f"… and {len(found) - _SHOWN} more")
    _end(WRONG if found else RIGHT)


def _end(verdict: str) -> NoReturn:
    print(verdict, flush=True)
    sys.exit(EXIT_STATUS[verdict])


def failure(error: BaseException) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
