"""Which backend runs, and which arguments are refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from errors import one_sentence
from interpreter import Interpreter

from hf_token_compress.kernels.backend import VARIABLE, choose_backend
from hf_token_compress.kernels.instruction_attention import instruction_attention
from hf_token_compress.kernels.relevance_step import relevance_step

pytestmark = pytest.mark.core

ATTENTION = "hf_token_compress.kernels.instruction_attention:instruction_attention"
STEP = "hf_token_compress.kernels.relevance_step:relevance_step"


def on_gpu(dtype: torch.dtype = torch.float32, head_dim: int = 64, **options: Any) -> Any:
    """What the choice of a backend reads of a tensor on a GPU."""

    class OnGPU:
        device = torch.device("cuda", 0)
        shape = (3, 2, head_dim)
        requires_grad = options.get("requires_grad", False)

    OnGPU.dtype = dtype
    return OnGPU()


def attention_arguments() -> dict[str, Any]:
    return {
        "query": torch.randn(2, 4, 8),
        "key": torch.randn(1, 5, 2, 8),
        "query_sample": torch.tensor([0, 0]),
        "query_position": torch.tensor([3, 4]),
        "key_mask": torch.ones(1, 5, dtype=torch.bool),
    }


def step_arguments() -> dict[str, Any]:
    return {
        "r": torch.rand(3, 2, 5),
        "query": torch.randn(2, 4, 5, 8),
        "key": torch.randn(2, 2, 5, 8),
        "value": torch.randn(2, 2, 5, 6),
        "grad_output": torch.randn(3, 2, 4, 5, 6),
    }


def test_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose_backend(None, torch.ones(2, 8)) == "torch"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose_backend(None, on_gpu(dtype)) == "triton"


@pytest.mark.parametrize(
    "tensor",
    [on_gpu(torch.float64), on_gpu(head_dim=257), on_gpu(requires_grad=True)],
    ids=["float64", "large heads", "gradient"],
)
def test_torch_where_triton_cannot_run(tensor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose_backend(None, tensor) == "torch"
    with one_sentence(ValueError, "Triton"):
        choose_backend("triton", tensor)


def test_no_gradient_is_needed_without_grad_mode() -> None:
    with torch.no_grad():
        assert choose_backend(None, on_gpu(requires_grad=True)) == "triton"


def test_torch_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert choose_backend(None, on_gpu()) == "torch"


def test_the_variable_decides_over_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose_backend(None, on_gpu()) == "torch"
    monkeypatch.setenv(VARIABLE, "triton")
    with one_sentence(ValueError, VARIABLE):
        instruction_attention(**attention_arguments())


def test_the_argument_decides_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    expected = instruction_attention(**attention_arguments(), backend="torch").shape
    assert expected == (1, 5)
    monkeypatch.setenv(VARIABLE, "torch")
    with one_sentence(ValueError, "backend"):
        relevance_step(**step_arguments(), backend="triton")


def test_an_empty_variable_leaves_the_choice_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert choose_backend(None, torch.ones(2, 8)) == "torch"


@pytest.mark.parametrize("source", ["argument", "variable"])
def test_an_unknown_backend(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = "cuda" if source == "argument" else None
    monkeypatch.setenv(VARIABLE, "cuda" if source == "variable" else "torch")
    named = "backend" if source == "argument" else VARIABLE
    with one_sentence(ValueError, named):
        instruction_attention(**attention_arguments(), backend=argument)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"query": torch.randn(4, 8)}, "query"),
        ({"query": torch.randn(2, 4, 8).double()}, "key"),
        ({"query": torch.ones(2, 4, 8, dtype=torch.int64)}, "query"),
        ({"query_sample": torch.tensor([0.0, 0.0])}, "query_sample"),
        ({"query_position": torch.tensor([3, 4]).int()}, "query_position"),
        ({"key_mask": torch.ones(1, 5)}, "key_mask"),
        ({"key": torch.randn(1, 5, 2, 8, device="meta")}, "key"),
        ({"sliding_window": 0}, "sliding_window"),
    ],
)
def test_attention_arguments_that_do_not_fit(changes: dict[str, Any], word: str) -> None:
    with one_sentence(ValueError, word):
        instruction_attention(**{**attention_arguments(), **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"r": torch.rand(3, 2, 5).double()}, "float32"),
        ({"key": torch.randn(2, 2, 5, 8).half()}, "key"),
        ({"key": torch.randn(2, 3, 5, 8)}, "key"),
        ({"value": torch.randn(2, 2, 4, 6)}, "value"),
        ({"grad_output": torch.randn(2, 2, 4, 5, 6)}, "grad_output"),
        ({"grad_output": None}, "grad_output"),
        ({"lse": torch.zeros(2, 4, 6)}, "lse"),
        ({"key_mask": torch.ones(2, 4, dtype=torch.bool)}, "key_mask"),
        ({"mask": torch.ones(3, 5, 5, dtype=torch.bool)}, "mask"),
        ({"mask": torch.ones(5, 5)}, "mask"),
        ({"query_positions": torch.arange(5).int()}, "query_positions"),
        ({"query": torch.randn(2, 4, 5, 8, device="meta")}, "query"),
        ({"reduction": "largest"}, "reduction"),
        ({"sliding_window": 0}, "sliding_window"),
    ],
)
def test_step_arguments_that_do_not_fit(changes: dict[str, Any], word: str) -> None:
    with one_sentence(ValueError, word):
        relevance_step(**{**step_arguments(), **changes})


@pytest.mark.parametrize("name", ["query", "key"])
def test_heads_that_are_not_contiguous(interpreter: Interpreter, name: str) -> None:
    arguments = attention_arguments()
    arguments[name] = arguments[name].mT.contiguous().mT
    assert instruction_attention(**arguments).shape == (1, 5)  # torch reads any layout
    with one_sentence(ValueError, name):
        interpreter.call(ATTENTION, **arguments, backend="triton")


@pytest.mark.parametrize("name", ["query", "key", "value", "grad_output"])
def test_heads_of_a_step_that_are_not_contiguous(interpreter: Interpreter, name: str) -> None:
    arguments = step_arguments()
    arguments[name] = arguments[name].mT.contiguous().mT
    assert relevance_step(**arguments).shape == (3, 2, 5)
    with one_sentence(ValueError, name):
        interpreter.call(STEP, **arguments, backend="triton")
