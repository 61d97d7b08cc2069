"""Warnings that a process gives once."""

from __future__ import annotations

import functools
import warnings


@functools.cache
def warn_once(message: str) -> None:
    """Warn with this message, unless this process did so before."""
    warnings.warn(message, UserWarning, stacklevel=3)
