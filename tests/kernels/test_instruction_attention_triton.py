"""The Triton version of the scoring kernel, in Triton's interpreter, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import Interpreter
from test_instruction_attention import dense, dense_statistics, ordered
from torch import Tensor

CALL = "hf_token_compress.kernels.instruction_attention:instruction_attention"
STATISTICS = "hf_token_compress.kernels.instruction_attention:attention_statistics"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    """Lengths around tile borders, ragged samples, queries in any order, NaN padding."""
    samples = draw(st.integers(1, 3))
    length = draw(st.sampled_from([1, 2, 17, 63, 64, 65]))
    queries = draw(st.sampled_from([0, 1, 2, 9, 31, 33]))
    key_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 3), (1, 7)]))
    head_dim = draw(st.sampled_from([32, 40, 64, 80, 96]))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    mask = torch.rand(samples, length, generator=generator) < draw(st.sampled_from([0.1, 0.8, 1.1]))
    key = torch.randn(samples, length, key_heads, head_dim, generator=generator)
    key[~mask] = float("nan")
    query = torch.randn(queries, key_heads * group, head_dim, generator=generator)
    return {
        "query": query.to(dtype),
        "key": key.to(dtype),
        "query_sample": torch.randint(0, samples, (queries,), generator=generator),
        "query_position": torch.randint(0, length, (queries,), generator=generator),
        "key_mask": mask,
        "scaling": draw(st.sampled_from([0.1, 0.7])),
        "sliding_window": draw(st.none() | st.integers(1, 70)),
    }


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Largest error per sample and head, relative to its largest value; zeros must be exact."""
    error = (result.double() - expected).abs().amax(-1)
    largest = expected.abs().amax(-1)
    assert (error[largest == 0] == 0).all()
    return float((error / largest.clamp(min=1e-30)).amax()) if error.numel() else 0.0


@settings(max_examples=25)
@given(problem=problems(), per_head=st.booleans())
def test_equals_the_dense_computation(
    interpreter: Interpreter, problem: dict[str, Any], per_head: bool
) -> None:
    expected = dense(*problem.values())
    expected = expected if per_head else expected.mean(1)
    result = interpreter.call(CALL, **problem, per_head=per_head, backend="triton")
    assert result.dtype == torch.float32
    limit = 1e-5 if problem["query"].dtype == torch.float32 else 2e-2
    assert relative_error(result, expected) <= limit


@settings(max_examples=20)
@given(problem=problems(), share=st.sampled_from([0.1, 0.5, 1.1]), in_order=st.booleans())
def test_mean_and_peak_equal_the_dense_computation(
    interpreter: Interpreter, problem: dict[str, Any], share: float, in_order: bool
) -> None:
    """Some samples have no key in `among`."""
    generator = torch.Generator().manual_seed(0)
    among = torch.rand(problem["key_mask"].shape, generator=generator) < share
    expected = dense_statistics(*problem.values(), among)
    given = ordered(problem) if in_order else problem
    result = interpreter.call(STATISTICS, **given, among=among, backend="triton")
    assert result.dtype == torch.float32
    limit = 1e-5 if problem["query"].dtype == torch.float32 else 2e-2
    for found, exact in zip(result, expected, strict=True):
        assert relative_error(found, exact) <= limit


def test_queries_that_give_the_keys_nearly_nothing(interpreter: Interpreter) -> None:
    """Their shares are of at least the smallest share, as with torch."""
    problem = random_problem(torch.float32, head_dim=32, length=130, queries=6)
    among = torch.arange(130).lt(65).expand(1, 130)
    problem["key"][:, 65:] *= 6
    expected = dense_statistics(*problem.values(), 1.0, None, among)[1]
    assert 0 < expected[..., :65].amax() < 1
    result = interpreter.call(STATISTICS, **problem, among=among, scaling=1.0, backend="triton")
    assert relative_error(result[1], expected) <= 1e-4


@pytest.mark.parametrize("head_dim", [32, 64, 80, 96, 128, 256])
def test_head_sizes(interpreter: Interpreter, head_dim: int) -> None:
    for dtype in DTYPES:
        problem = random_problem(dtype, head_dim=head_dim, length=70, queries=5)
        expected = dense(*problem.values(), head_dim**-0.5, None).mean(1)
        result = interpreter.call(CALL, **problem, backend="triton")
        limit = 1e-5 if dtype == torch.float32 else 2e-2
        assert relative_error(result, expected) <= limit


def test_keeps_the_same_tokens_as_float64(interpreter: Interpreter) -> None:
    """The top k are the same for every k where scores differ by more than rounding."""
    problem = random_problem(torch.float32, head_dim=64, length=200, queries=12)
    expected = dense(*problem.values(), 0.125, None).mean(1)[0]
    result = interpreter.call(CALL, **problem, backend="triton")[0]
    ordered, order = expected.sort(descending=True)
    for kept in range(1, len(order)):
        if ordered[kept - 1] - ordered[kept] > 1e-6 * ordered[0]:
            assert set(result.topk(kept).indices.tolist()) == set(order[:kept].tolist())


def test_large_logits_do_not_overflow(interpreter: Interpreter) -> None:
    problem = random_problem(torch.float32, head_dim=32, length=65, queries=3)
    problem["query"] *= 300
    expected = dense(*problem.values(), 1.0, None).mean(1)
    result = interpreter.call(CALL, **problem, scaling=1.0, backend="triton")
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-3)


def test_views_of_larger_tensors_are_read_where_they_are(interpreter: Interpreter) -> None:
    problem = random_problem(torch.float32, head_dim=32, length=20, queries=4)
    expected = interpreter.call(CALL, **problem, backend="triton")
    for name in ("query", "key"):
        whole = torch.full((*problem[name].shape[:-1], 48), float("nan"))
        whole[..., 8:40] = problem[name]
        problem[name] = whole[..., 8:40]
    assert torch.equal(interpreter.call(CALL, **problem, backend="triton"), expected)


def test_queries_may_come_in_any_order(interpreter: Interpreter) -> None:
    problem = random_problem(torch.float32, head_dim=32, length=20, queries=9, samples=3)
    expected = interpreter.call(CALL, **problem, backend="triton")
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for name in ("query", "query_sample", "query_position"):
        problem[name] = problem[name][shuffled]
    torch.testing.assert_close(interpreter.call(CALL, **problem, backend="triton"), expected)


def random_problem(
    dtype: torch.dtype, *, head_dim: int, length: int, queries: int, samples: int = 1
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(head_dim)
    return {
        "query": torch.randn(queries, 4, head_dim, generator=generator).to(dtype),
        "key": torch.randn(samples, length, 2, head_dim, generator=generator).to(dtype),
        "query_sample": torch.arange(queries) * samples // queries,
        "query_position": torch.arange(queries) % 3 + length - 3,
        "key_mask": torch.ones(samples, length, dtype=torch.bool),
    }
