"""A decoding step after a compressed prompt costs what a stock step costs."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

import pytest
from pairs import HALF, make_pair
from tiny_models import RAGGED, make_inputs
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.core

MOST_CALLS = 24
"""Functions of the library that a step may call, those of the model under the head among them."""


class Step(TorchDispatchMode):
    """Notes the tensor operations, and the library's functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.calls: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operations.append(str(function))
        return function(*args, **(kwargs or {}))

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        named = not code.co_name.startswith("<")  # comprehensions are no calls in Python 3.12
        if event == "call" and named and f"{os.sep}hf_token_compress{os.sep}" in code.co_filename:
            self.calls.append(code.co_name)

    def __enter__(self) -> Step:
        super().__enter__()
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *error: Any) -> None:
        sys.setprofile(None)
        super().__exit__(*error)


def last_step(model: Any, **inputs: Any) -> Step:
    """The last step of a `generate`."""
    steps: list[Step] = []

    def begin(module: Any, args: Any) -> None:
        steps.append(Step())
        steps[-1].__enter__()

    def end(module: Any, args: Any, output: Any) -> None:
        steps[-1].__exit__(None, None, None)

    handles = model.register_forward_pre_hook(begin), model.register_forward_hook(end)
    model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    for handle in handles:
        handle.remove()
    return steps[-1]


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_onevision"])
def test_no_further_operation_and_few_calls(family: str) -> None:
    pair = make_pair(HALF, family=family)
    inputs = make_inputs(RAGGED, family=family)
    stock, compressed = last_step(pair.stock, **inputs), last_step(pair.compressed, **inputs)
    assert stock.operations
    assert compressed.operations == stock.operations
    assert not stock.calls
    assert len(compressed.calls) <= MOST_CALLS, compressed.calls
