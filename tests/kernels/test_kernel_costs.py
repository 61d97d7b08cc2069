"""The commands in `kernels/benchmarks`: the roofline's counts and what the timings check."""

from __future__ import annotations

import sys
from types import ModuleType

import problems
import pytest
import roofline
import timing
import torch
from interpreter import Interpreter
from torch.utils.flop_counter import FlopCounterMode

import hf_token_compress.kernels


def test_operations_are_those_of_the_matrix_products() -> None:
    """Counted by torch on the same shapes; a causal map is half of a whole one."""
    length, instruction = 24, 5
    problem = problems.step_problem(length, 1, torch.float32, torch.device("cpu"))
    _, query, key, value, gradient = problem
    group = roofline.HEADS // roofline.KEY_HEADS
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    with FlopCounterMode(display=False) as eager:
        (query @ key.mT) @ value
    assert roofline.eager_attention(length).flops == eager.get_total_flops()
    with FlopCounterMode(display=False) as logits:
        query[:, :, -instruction:] @ key.mT
    expected = 2 * logits.get_total_flops()
    assert roofline.instruction_attention(length, instruction).flops == expected
    with FlopCounterMode(display=False) as step:
        query @ key.mT, query @ key.mT, gradient[0] @ value.mT
    causal = (length + 1) / (2 * length)
    assert roofline.relevance_step(length).flops == step.get_total_flops() * causal


def test_keys_and_queries_are_moved_as_often_as_said() -> None:
    """In the limit of no instruction, only keys and the result are left."""
    *_, key, _, _, _ = problems.attention_problem(40, 1, torch.bfloat16, torch.device("cpu"))
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


def test_the_timings_check_the_kernels_first(interpreter: Interpreter) -> None:
    """The comparisons, at a length that the interpreter can do."""
    assert interpreter.call("timing:check", torch.device("cpu"), 3, 2, 20) == []


def test_the_timings_notice_an_error() -> None:
    exact = torch.tensor([[1.0, 2.0], [0.1, 0.4]])
    result = exact + torch.tensor([[0.0, 0.1], [0.0, 0.1]])
    assert timing.relative_error(result, exact) == pytest.approx(0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_timing_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert timing.main([]) == 0
    printed = capsys.readouterr().out
    assert printed == "No CUDA or ROCm device is available: nothing is checked or measured.\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_kernels_are_exact_on_a_gpu() -> None:
    assert timing.check(torch.device("cuda"), 40, 2) == []


class Runner:
    """What a class of workloads inherits from Hugging Face's package `kernels`."""

    device = "cpu"
    kernel = hf_token_compress.kernels


@pytest.fixture
def workloads(monkeypatch: pytest.MonkeyPatch) -> type:
    """The class that `kernels benchmark` runs, with less text."""
    package, module = ModuleType("kernels"), ModuleType("kernels.benchmark")
    module.Benchmark = Runner
    monkeypatch.setitem(sys.modules, "kernels", package)
    monkeypatch.setitem(sys.modules, "kernels.benchmark", module)
    monkeypatch.delitem(sys.modules, "benchmark", raising=False)
    import benchmark

    monkeypatch.setattr(benchmark, "_LENGTH", 60)
    return benchmark.Qwen2VL7B


@pytest.mark.parametrize("name", ["instruction_attention", "relevance_step"])
def test_workloads_of_the_kernels_command(workloads: type, name: str) -> None:
    """Set up, run, compare: a wrong result is an error that the command reports."""
    run = workloads()
    getattr(run, f"setup_{name}")()
    getattr(run, f"benchmark_{name}")()
    verify = getattr(run, f"verify_{name}")
    assert torch.equal(run.out, verify())
    run.out = run.out * 1.1
    with pytest.raises(RuntimeError, match="differs"):
        verify()
