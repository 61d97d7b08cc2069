"""The processes of a run, through Accelerate."""

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

_TIMEOUT = timedelta(days=7)
"""How long a process waits for others that still write shards; torch's default is shorter."""

_Result = TypeVar("_Result")


def process_state() -> PartialState:
    """This process and the number of processes, as Accelerate's `PartialState`."""
    return PartialState(cpu=_on_cpu(), timeout=_TIMEOUT)


def make_accelerator() -> Accelerator:
    """An `Accelerator` over the processes of `process_state`."""
    process_state()
    return Accelerator(cpu=_on_cpu())


def from_main_process(compute: Callable[[], _Result]) -> _Result:
    """Compute on the main process, and return the result or raise the error on every process."""
    state = process_state()
    outcome: list[tuple[_Result | None, Exception | None]] = [(None, None)]
    if state.is_main_process:
        try:
            outcome = [(compute(), None)]
        except Exception as error:  # the other processes wait for an outcome
            outcome = [(None, error)]
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    ((result, failed),) = outcome
    if failed is not None:
        raise failed
    return cast(_Result, result)


def _on_cpu() -> bool:
    """Whether to run on CPUs; otherwise Accelerate treats each CPU process as the only one."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
