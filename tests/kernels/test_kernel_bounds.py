"""The Triton kernels neither read nor write past the end of a tensor."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from interpreter import Interpreter
from matrix import full_only
from places import SUPPORT
from test_instruction_attention_triton import CALL as ATTENTION
from test_instruction_attention_triton import STATISTICS
from test_instruction_attention_triton import random_problem as attention_problem
from test_relevance_step_triton import CALL as STEP
from test_relevance_step_triton import random_problem as step_problem

GUARDED = "guarded:call_guarded"
each_head = pytest.mark.parametrize(
    ("dtype", "head_dim"),
    [
        (torch.float32, 40),
        full_only(torch.float32, 80),
        full_only(torch.bfloat16, 40),
        full_only(torch.bfloat16, 80),
    ],
)


@each_head
def test_instruction_attention(interpreter: Interpreter, dtype: torch.dtype, head_dim: int) -> None:
    problem = attention_problem(dtype, head_dim=head_dim, length=70, queries=5, samples=2)
    for per_head in (False, True):
        arguments = {**problem, "per_head": per_head, "backend": "triton"}
        expected = interpreter.call(ATTENTION, **arguments)
        assert torch.equal(interpreter.call(GUARDED, ATTENTION, **arguments), expected)
    among = torch.arange(140).view(2, 70) % 3 == 0
    arguments = {**problem, "among": among, "query_counts": [3, 2], "backend": "triton"}
    expected = interpreter.call(STATISTICS, **arguments)
    assert torch.equal(interpreter.call(GUARDED, STATISTICS, **arguments), expected)


@each_head
def test_relevance_step(interpreter: Interpreter, dtype: torch.dtype, head_dim: int) -> None:
    problem = step_problem(targets=3, length=70, head_dim=head_dim, value_dim=48, dtype=dtype)
    problem |= {"normalize_per_query": True, "sliding_window": 30, "backend": "triton"}
    problem["mask"] = torch.rand(1, 2, 70, 70) < 0.8
    expected = interpreter.call(STEP, **problem)
    assert torch.equal(interpreter.call(GUARDED, STEP, **problem), expected)


def test_reading_past_the_end_is_noticed() -> None:
    """By the guard itself: one element too many ends the process."""
    code = (
        "import ctypes, guarded, torch\n"
        "whole = guarded.at_the_end_of_memory(torch.arange(10))\n"
        "assert whole.tolist() == list(range(10))\n"
        "print('read', flush=True)\n"
        "ctypes.c_int64.from_address(whole.data_ptr() + whole.nbytes).value\n"
        "print('past', flush=True)"
    )
    folder = SUPPORT
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "read\n"
    assert done.returncode < 0
