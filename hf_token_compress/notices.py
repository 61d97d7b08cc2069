"""Warnings, which name the line of the user's own code that they are about."""

from __future__ import annotations

import functools
import sys
import warnings

_NOT_THE_USERS = frozenset({"contextlib", "functools", __name__.partition(".")[0]})
_NOT_THE_USERS |= {"accelerate", "torch", "transformers"}


def warn(message: str) -> None:
    """Warn with this message, at the innermost line that belongs to none of the libraries."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame.f_globals) in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@functools.cache
def warn_once(message: str) -> None:
    """Warn with this message, unless this process did so before."""
    warn(message)


def _package(module: dict[str, object]) -> str:
    """First part of the name of a module, from its globals."""
    return str(module.get("__name__")).partition(".")[0]
