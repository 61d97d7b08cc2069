"""Which backend runs, and what is refused before anything runs."""

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
    """Something that looks like a tensor on a GPU as far as the choice goes."""

    class Elsewhere:
        device = torch.device("cuda", 0)
        shape = (3, 2, head_dim)
        requires_grad = options.get("requires_grad", False)

    Elsewhere.dtype = dtype
    return Elsewhere()


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
def test_torch_where_triton_has_nothing(tensor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose_backend(None, tensor) == "torch"
    with one_sentence(ValueError, "backend asks for Triton", "'torch'"):
        choose_backend("triton", tensor)


def test_no_gradient_is_asked_for_without_grad_mode() -> None:
    with torch.no_grad():
        assert choose_backend(None, on_gpu(requires_grad=True)) == "triton"


def test_torch_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert choose_backend(None, on_gpu()) == "torch"


def test_the_variable_decides_over_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose_backend(None, on_gpu()) == "torch"
    monkeypatch.setenv(VARIABLE, "triton")
    with one_sentence(ValueError, VARIABLE, "on cpu"):
        instruction_attention(**attention_arguments())


def test_the_argument_decides_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    expected = instruction_attention(**attention_arguments(), backend="torch").shape
    assert expected == (1, 5)
    monkeypatch.setenv(VARIABLE, "torch")
    with one_sentence(ValueError, "backend asks for Triton", "on cpu"):
        relevance_step(**step_arguments(), backend="triton")


def test_an_empty_variable_leaves_the_choice_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert choose_backend(None, torch.ones(2, 8)) == "torch"


@pytest.mark.parametrize("source", ["argument", "variable"])
def test_an_unknown_backend(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = "cuda" if source == "argument" else None
    monkeypatch.setenv(VARIABLE, "cuda" if source == "variable" else "torch")
    named = "backend" if source == "argument" else VARIABLE
    with one_sentence(ValueError, named, "triton, torch", "'cuda'"):
        instruction_attention(**attention_arguments(), backend=argument)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"query": torch.randn(4, 8)}, ("query must be [rows", "[4, 8]")),
        ({"query": torch.randn(2, 4, 8).double()}, ("key", "torch.float64", "torch.float32")),
        ({"query": torch.ones(2, 4, 8, dtype=torch.int64)}, ("query", "floating", "torch.int64")),
        ({"query_sample": torch.tensor([0.0, 0.0])}, ("query_sample", "torch.int64")),
        ({"query_position": torch.tensor([3, 4]).int()}, ("query_position", "torch.int32")),
        ({"key_mask": torch.ones(1, 5)}, ("key_mask", "torch.bool", "torch.float32")),
        ({"key": torch.randn(1, 5, 2, 8, device="meta")}, ("key", "cpu", "meta")),
        ({"sliding_window": 0}, ("sliding_window", "0")),
    ],
)
def test_attention_arguments_that_do_not_fit(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    with one_sentence(ValueError, *words):
        instruction_attention(**{**attention_arguments(), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": torch.rand(3, 2, 5).double()}, ("r must be torch.float32", "torch.float64")),
        ({"key": torch.randn(2, 2, 5, 8).half()}, ("key", "torch.float16")),
        ({"key": torch.randn(2, 3, 5, 8)}, ("query", "key [2, 3, 5, 8]")),
        ({"value": torch.randn(2, 2, 4, 6)}, ("value [2, 2, 4, 6]",)),
        ({"grad_output": torch.randn(2, 2, 4, 5, 6)}, ("grad_output", "[3, 2, 4, 5, 6]")),
        ({"grad_output": None}, ("grad_output", "None")),
        ({"lse": torch.zeros(2, 4, 6)}, ("lse", "[2, 4, 5]", "[2, 4, 6]")),
        ({"key_mask": torch.ones(2, 4, dtype=torch.bool)}, ("key_mask", "[2, 5]")),
        ({"mask": torch.ones(3, 5, 5, dtype=torch.bool)}, ("mask", "[2, 4, 5, 5]", "[3, 5, 5]")),
        ({"mask": torch.ones(5, 5)}, ("mask", "torch.bool")),
        ({"query_positions": torch.arange(5).int()}, ("query_positions", "torch.int32")),
        ({"query": torch.randn(2, 4, 5, 8, device="meta")}, ("query", "cpu", "meta")),
        ({"reduction": "largest"}, ("reduction", "positive", "'largest'")),
        ({"sliding_window": 0}, ("sliding_window", "0")),
    ],
)
def test_step_arguments_that_do_not_fit(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with one_sentence(ValueError, *words):
        relevance_step(**{**step_arguments(), **changes})


@pytest.mark.parametrize("name", ["query", "key"])
def test_heads_that_are_not_contiguous(interpreter: Interpreter, name: str) -> None:
    arguments = attention_arguments()
    arguments[name] = arguments[name].mT.contiguous().mT
    assert instruction_attention(**arguments).shape == (1, 5)  # torch reads any layout
    with one_sentence(ValueError, name, "contiguous", "stride"):
        interpreter.call(ATTENTION, **arguments, backend="triton")


@pytest.mark.parametrize("name", ["query", "key", "value", "grad_output"])
def test_heads_of_a_step_that_are_not_contiguous(interpreter: Interpreter, name: str) -> None:
    arguments = step_arguments()
    arguments[name] = arguments[name].mT.contiguous().mT
    assert relevance_step(**arguments).shape == (3, 2, 5)
    with one_sentence(ValueError, name, "contiguous", "stride"):
        interpreter.call(STEP, **arguments, backend="triton")
