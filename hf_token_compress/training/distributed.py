"""Accelerate, or a sentence on how to get it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import torch

try:
    from accelerate import Accelerator, PartialState
    from accelerate.utils import broadcast_object_list, parse_flag_from_env
except ImportError as error:
    raise ImportError(
        "Collecting and training need the package accelerate: "
        'pip install "hf-token-compress[training]".'
    ) from error

__all__ = ["Accelerator", "from_main_process", "make_accelerator", "process_state"]

_PATIENCE = timedelta(days=7)

_Result = TypeVar("_Result")


def process_state() -> PartialState:
    """Which of how many processes this is.

    One that is done with its shards waits for the others, for much longer than the half hour after
    which torch takes a process for lost.
    """
    return PartialState(cpu=_on_cpu(), timeout=_PATIENCE)


def make_accelerator() -> Accelerator:
    """An `Accelerator` of the same processes."""
    process_state()
    return Accelerator(cpu=_on_cpu())


def from_main_process(compute: Callable[[], _Result]) -> _Result:
    """What the main process computes, or the error that it raises, on every process."""
    state = process_state()
    outcome: list[tuple[_Result | None, Exception | None]] = [(None, None)]
    if state.is_main_process:
        try:
            outcome = [(compute(), None)]
        except Exception as error:  # the others wait for it
            outcome = [(None, error)]
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    ((result, failed),) = outcome
    if failed is not None:
        raise failed
    return cast(_Result, result)


def _on_cpu() -> bool:
    """Whether to compute on CPUs: without being told so, Accelerate takes each for the only one."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
