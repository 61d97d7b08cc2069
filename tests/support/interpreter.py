"""Triton's interpreter, in a process of its own.

It is switched on by an environment variable that Triton reads as kernels are defined, so the
process of the tests, which also compiles kernels, cannot have it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any


class Interpreter:
    """Calls functions of a process in which Triton kernels run on CPU tensors."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_switch_on
        )

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call `module:function` there; its exceptions are raised here."""
        # As bytes, for torch would hand tensors over by file descriptors.
        request = pickle.dumps((function, args, kwargs))
        return pickle.loads(self._pool.submit(_answer, request).result())

    def close(self) -> None:
        self._pool.shutdown()


def _switch_on() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    import torch

    torch.set_num_threads(1)


def _answer(request: bytes) -> bytes:
    function, args, kwargs = pickle.loads(request)
    module, name = function.split(":")
    with warnings.catch_warnings():
        # The logarithm of zero is meant: minus infinity for a row that sees nothing.
        warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning)
        return pickle.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs))
