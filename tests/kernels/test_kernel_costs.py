"""The roofline's counts and the benchmark's checks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from interpreter import Interpreter
from torch.utils.flop_counter import FlopCounterMode

from hf_token_compress.kernels import benchmark, roofline


def test_operations_are_those_of_the_matrix_products() -> None:
    """Counted by torch on the same shapes; a causal map is half of a whole one."""
    length, rows = 24, 5
    problem = benchmark.step_problem(length, 1, torch.float32, torch.device("cpu"))
    _, query, key, value, gradient = problem
    group = roofline.HEADS // roofline.KEY_HEADS
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    with FlopCounterMode(display=False) as eager:
        (query @ key.mT) @ value
    assert roofline.eager_attention(length).flops == eager.get_total_flops()
    with FlopCounterMode(display=False) as logits:
        query[:, :, -rows:] @ key.mT
    assert roofline.instruction_attention(length, rows).flops == 2 * logits.get_total_flops()
    with FlopCounterMode(display=False) as step:
        query @ key.mT, query @ key.mT, gradient[0] @ value.mT
    causal = (length + 1) / (2 * length)
    assert roofline.relevance_step(length).flops == step.get_total_flops() * causal


def test_keys_and_queries_are_moved_as_often_as_said() -> None:
    """In the limit of no instruction, only keys and the result are left."""
    *_, key, _, _, _ = benchmark.attention_problem(40, 1, torch.bfloat16, torch.device("cpu"))
    out = 4 * 40 * roofline.KEY_HEADS
    assert roofline.instruction_attention(40, 0).moved == 2 * key.nbytes + 2 * out


def test_the_slowest_unit_sets_the_time() -> None:
    limits = roofline.Limits("", bandwidth=10, flops=100, exponentials=1000)
    for work, expected in ((100, 1, 1), 10), ((1, 500, 1), 5), ((1, 1, 9000), 9):
        assert roofline.Work("", *work).seconds(limits) == expected


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline.main(["--visual-tokens", "100", "300"]) == 0
    printed = capsys.readouterr().out
    assert "100 visual tokens" in printed
    assert printed.count("instruction_attention") == 2


def test_the_benchmark_checks_the_kernels(interpreter: Interpreter) -> None:
    """Its comparisons, at a length that the interpreter can do."""
    check = "hf_token_compress.kernels.benchmark:check"
    assert interpreter.call(check, torch.device("cpu"), 3, 2, 20) == []


def test_the_benchmark_notices_an_error() -> None:
    exact = torch.tensor([[1.0, 2.0], [0.1, 0.4]])
    result = exact + torch.tensor([[0.0, 0.1], [0.0, 0.1]])
    assert benchmark.relative_to_row_maximum(result, exact) == pytest.approx(0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_the_benchmark_needs_a_gpu_and_says_so() -> None:
    command = [sys.executable, "-m", "hf_token_compress.kernels.benchmark"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No CUDA or ROCm device is available: nothing is checked or measured.\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu() -> None:
    assert benchmark.check(torch.device("cuda"), 40, 2) == []
