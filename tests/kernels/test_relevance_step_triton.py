"""The Triton version of the relevance step, in Triton's interpreter, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import Interpreter
from torch import Tensor

from hf_token_compress.kernels.relevance_step import relevance_step

CALL = "hf_token_compress.kernels.relevance_step:relevance_step"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
REDUCTIONS = ("positive", "absolute", "signed", "attention")


def dense(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor,
    *,
    query_positions: Tensor | None = None,
    key_mask: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = True,
    sliding_window: int | None = None,
    scaling: float = 1.0,
    reduction: str = "positive",
    normalize_per_query: bool = False,
    residual: bool = True,
) -> Tensor:
    """The formula with whole maps, in float64."""
    heads, queries, length = query.shape[1], query.shape[2], key.shape[2]
    group = heads // key.shape[1]
    at = torch.arange(queries) if query_positions is None else query_positions
    offset = at[:, None] - torch.arange(length)
    seen = (offset >= 0) if causal else torch.ones_like(offset, dtype=torch.bool)
    if sliding_window is not None:
        seen = seen & (offset < sliding_window)
    if key_mask is not None:
        seen = seen & key_mask[:, None, None]
        key, value = (x.masked_fill(~key_mask[:, None, :, None], 0.0) for x in (key, value))
    if mask is not None:
        seen = seen & mask
    query, key, value, grad_output = (x.double() for x in (query, key, value, grad_output))
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    logits = (query @ key.mT * scaling).masked_fill(~seen, float("-inf"))
    attention = logits.softmax(-1).nan_to_num(0.0)  # queries without keys
    change = attention * (grad_output @ value.mT)  # [T, B, heads, Q, S]
    change = {
        "positive": change.clamp(min=0),
        "absolute": change.abs(),
        "signed": change,
        "attention": attention.expand_as(change),
    }[reduction]
    step = change.mean(2)  # [T, B, Q, S]
    if normalize_per_query:
        total = step.sum(-1, keepdim=True)
        step = torch.where(total == 0, 0.0, step / torch.where(total == 0, 1.0, total))
    folded = torch.einsum("tbq,tbqs->tbs", r.double()[..., at], step)
    return r + folded if residual else folded


def random_problem(
    *,
    targets: int = 1,
    samples: int = 1,
    length: int = 40,
    queries: int | None = None,
    key_heads: int = 1,
    group: int = 2,
    head_dim: int = 32,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Any]:
    """Random tensors; `queries` queries at random positions, or all."""
    generator = torch.Generator().manual_seed(seed)
    value_dim = value_dim or head_dim
    heads, count = key_heads * group, queries or length

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "r": torch.rand(targets, samples, length, generator=generator),
        "query": normal(samples, heads, count, head_dim),
        "key": normal(samples, key_heads, length, head_dim),
        "value": normal(samples, key_heads, length, value_dim),
        "grad_output": normal(targets, samples, heads, count, value_dim),
        "query_positions": None
        if queries is None
        else torch.randperm(length, generator=generator)[:queries].sort().values,
        "scaling": head_dim**-0.5,
    }


def assert_equal_to_dense(interpreter: Interpreter, problem: dict[str, Any]) -> None:
    expected = dense(**problem)
    result = interpreter.call(CALL, **problem, backend="triton")
    assert result.dtype == torch.float32
    error = (result.double() - expected).abs().amax(-1)
    largest = expected.abs().amax(-1)
    limit = 1e-5 if problem["query"].dtype == torch.float32 else 2e-2
    # Smaller results are rounding errors of their terms.
    assert (error <= limit * largest.clamp(min=1e-3)).all(), (error, largest)


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    """Lengths around tile borders, idle queries, NaN padding, queries without keys."""
    length = draw(st.sampled_from([1, 2, 31, 33, 63, 64, 65]))
    key_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    problem = random_problem(
        targets=draw(st.integers(1, 3)),
        samples=draw(st.integers(1, 2)),
        length=length,
        queries=draw(st.none() | st.integers(1, length)),
        key_heads=key_heads,
        group=group,
        head_dim=draw(st.sampled_from([32, 80])),
        value_dim=draw(st.sampled_from([32, 48])),
        dtype=draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 999)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    chance = torch.rand(problem["r"].shape, generator=generator)
    problem["r"] *= chance < draw(st.sampled_from([0.0, 0.1, 0.9, 1.1]))
    if draw(st.booleans()):
        samples = problem["key"].shape[0]
        mask = torch.rand(samples, length, generator=generator) < 0.8
        for name in ("key", "value"):
            problem[name].masked_fill_(~mask[:, None, :, None], float("nan"))
        problem["key_mask"] = mask
    queries = problem["query"].shape[2]
    if draw(st.booleans()):
        problem["mask"] = torch.rand(1, queries, length, generator=generator) < 0.7
    problem["causal"] = draw(st.booleans())
    problem["sliding_window"] = draw(st.none() | st.integers(1, 70))
    problem["reduction"] = draw(st.sampled_from(REDUCTIONS))
    # Signed sums may be arbitrarily close to zero.
    problem["normalize_per_query"] = problem["reduction"] != "signed" and draw(st.booleans())
    problem["residual"] = draw(st.booleans())
    return problem


@settings(max_examples=25)
@given(problem=problems())
def test_equals_the_dense_computation(interpreter: Interpreter, problem: dict[str, Any]) -> None:
    assert_equal_to_dense(interpreter, problem)


@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
def test_head_sizes(interpreter: Interpreter, head_dim: int) -> None:
    for dtype in DTYPES:
        assert_equal_to_dense(
            interpreter, random_problem(head_dim=head_dim, length=35, dtype=dtype)
        )


@pytest.mark.parametrize("normalize_per_query", [False, True])
def test_queries_without_relevance_may_hold_nan(
    interpreter: Interpreter, normalize_per_query: bool
) -> None:
    problem = random_problem(targets=2, length=70)
    problem["normalize_per_query"] = normalize_per_query
    idle = torch.zeros(70, dtype=torch.bool)
    idle[[0, 5, 6, 33, 40]] = True
    idle[60:] = True
    problem["r"][..., idle] = 0.0
    expected = interpreter.call(CALL, **problem, backend="triton")
    for name in ("query", "grad_output"):
        problem[name][..., idle, :] = float("nan")
    assert torch.equal(interpreter.call(CALL, **problem, backend="triton"), expected)


@pytest.mark.parametrize("position", [0, 31, 32, 63, 64, 89])
def test_one_query_carries_relevance(interpreter: Interpreter, position: int) -> None:
    """As in the top layer, where only the token that predicts the target does."""
    problem = random_problem(length=90)
    problem["r"].zero_()[..., position] = 1.0
    assert_equal_to_dense(interpreter, problem)


@pytest.mark.parametrize("window", [1, 40, 64])
def test_a_window_moves_over_the_tiles(interpreter: Interpreter, window: int) -> None:
    problem = random_problem(length=150, group=1)
    assert_equal_to_dense(interpreter, {**problem, "sliding_window": window})


def test_a_saved_log_sum_exp_changes_nothing(interpreter: Interpreter) -> None:
    problem = random_problem(targets=2, length=40, group=3)
    query, key = problem["query"], problem["key"].repeat_interleave(3, 1)
    logits = query @ key.mT * problem["scaling"]
    above = torch.ones(40, 40, dtype=torch.bool).triu(1)
    saved = logits.masked_fill(above, float("-inf")).logsumexp(-1)
    for normalize_per_query in (False, True):
        arguments = {**problem, "normalize_per_query": normalize_per_query, "backend": "triton"}
        torch.testing.assert_close(
            interpreter.call(CALL, **arguments, lse=saved), interpreter.call(CALL, **arguments)
        )


def test_views_are_read_where_they_are(interpreter: Interpreter) -> None:
    """Heads come from a projection as [B, S, heads, head_dim]."""
    problem = random_problem(targets=2, samples=2, length=20, key_heads=2)
    expected = interpreter.call(CALL, **problem, backend="triton")
    for name in ("query", "key", "value", "grad_output"):
        problem[name] = problem[name].transpose(-2, -3).contiguous().transpose(-2, -3)
        assert not problem[name].is_contiguous()
    assert torch.equal(interpreter.call(CALL, **problem, backend="triton"), expected)


@pytest.mark.core
def test_both_backends_agree_with_the_formula() -> None:
    """The torch version on the same problems, against the same formula."""
    for reduction in REDUCTIONS:
        problem = random_problem(targets=2, samples=2, length=30, key_heads=2)
        problem |= {"reduction": reduction, "sliding_window": 7, "normalize_per_query": True}
        result = relevance_step(**problem, backend="torch")
        torch.testing.assert_close(result.double(), dense(**problem), rtol=1e-4, atol=1e-5)
