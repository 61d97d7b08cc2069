"""Accelerate, or a sentence on how to get it."""

from __future__ import annotations

from datetime import timedelta

try:
    from accelerate import Accelerator, PartialState
except ImportError as error:
    raise ImportError(
        "Collecting and training need the package accelerate: "
        'pip install "hf-token-compress[training]".'
    ) from error

__all__ = ["Accelerator", "process_state"]

_PATIENCE = timedelta(days=7)


def process_state() -> PartialState:
    """Which of how many processes this is.

    One that is done with its shards waits for the others, for much longer than the half hour after
    which torch takes a process for lost.
    """
    return PartialState(timeout=_PATIENCE)
