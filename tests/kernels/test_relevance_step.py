"""One layer of propagation against a dense computation in float64."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from torch import Tensor

from hf_token_compress.kernels.relevance_step import relevance_step

pytestmark = pytest.mark.core

FUNCTIONS = {
    "positive": lambda edges, attention: edges.clamp(min=0),
    "absolute": lambda edges, attention: edges.abs(),
    "signed": lambda edges, attention: edges,
    "attention": lambda edges, attention: attention,
}


def dense(problem: dict[str, Any]) -> Tensor:
    """[T, B, S], one sample, query and head at a time, in float64."""
    r, query, key, value, gradient = (
        problem[name] for name in ("r", "query", "key", "value", "grad_output")
    )
    targets, batch, length = r.shape
    heads, queries = query.shape[1:3]
    positions = problem["query_positions"]
    positions = range(queries) if positions is None else positions.tolist()
    group = heads // key.shape[1]
    scaling = problem["scaling"] or query.shape[-1] ** -0.5
    result = r.double().clone() if problem["residual"] else torch.zeros_like(r).double()
    for sample in range(batch):
        for index, at in enumerate(positions):
            seen = [key for key in range(length) if visible(problem, sample, index, at, key)]
            if not seen:
                continue
            for target in range(targets):
                edges = torch.zeros(length, dtype=torch.float64)
                for head in range(heads):
                    own = key[sample, head // group, seen].double()
                    logits = own @ query[sample, head, index].double() * scaling
                    attention = logits.softmax(0)
                    slope = (
                        value[sample, head // group, seen].double()
                        @ gradient[target, sample, head, index].double()
                    )
                    weighted = FUNCTIONS[problem["reduction"]](attention * slope, attention)
                    edges[seen] += weighted / heads
                if problem["normalize_per_query"] and edges.sum() != 0:
                    edges /= edges.sum()
                result[target, sample] += r[target, sample, at].double() * edges
    return result


def visible(problem: dict[str, Any], sample: int, index: int, at: int, key: int) -> bool:
    window, mask = problem["sliding_window"], problem["mask"]
    return bool(
        (not problem["causal"] or key <= at)
        and (window is None or at - key < window)
        and (problem["key_mask"] is None or problem["key_mask"][sample, key])
        and (mask is None or mask[sample if len(mask) > 1 else 0, 0, index, key])
    )


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    targets, batch, length = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 9)),
    )
    key_heads, group = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))
    head_dim, value_dim = draw(st.sampled_from([2, 4])), draw(st.sampled_from([2, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    positions = sorted(draw(st.sets(st.integers(0, length - 1), min_size=1)))
    some = draw(st.booleans())
    count = len(positions) if some else length

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def booleans(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) < 0.7

    key, value = (normal(batch, key_heads, length, size) for size in (head_dim, value_dim))
    key_mask = booleans(batch, length) if draw(st.booleans()) else None
    if key_mask is not None:
        for tensor in (key, value):
            tensor.transpose(1, 2)[~key_mask] = float("nan")
    return {
        "r": torch.rand(targets, batch, length, generator=generator),
        "query": normal(batch, key_heads * group, count, head_dim),
        "key": key,
        "value": value,
        "grad_output": normal(targets, batch, key_heads * group, count, value_dim),
        "query_positions": torch.tensor(positions) if some else None,
        "key_mask": key_mask,
        "mask": booleans(draw(st.sampled_from([1, batch])), 1, count, length)
        if draw(st.booleans())
        else None,
        "causal": draw(st.booleans()),
        "sliding_window": draw(st.none() | st.integers(1, 6)),
        "scaling": draw(st.none() | st.just(0.7)),
        "reduction": draw(st.sampled_from(sorted(FUNCTIONS))),
        "normalize_per_query": draw(st.booleans()),
        "residual": draw(st.booleans()),
    }


@given(problem=problems(), chunk=st.none() | st.integers(1, 9))
def test_equals_the_dense_computation(problem: dict[str, Any], chunk: int | None) -> None:
    """Grouped heads, NaN padding, windows, masks, some queries, queries without keys."""
    if problem["normalize_per_query"] and problem["reduction"] == "signed":
        # A signed sum may be almost zero.
        problem["reduction"] = "absolute"
    result = relevance_step(**problem, chunk_size=chunk)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), dense(problem), rtol=2e-5, atol=2e-6)


def test_a_given_log_sum_exp_is_used() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 7, 4, generator=generator) for _ in range(3))
    gradient = torch.randn(1, 1, 2, 7, 4, generator=generator)
    r = torch.rand(1, 1, 7, generator=generator)
    logits = (query @ key.transpose(-1, -2) / 2).masked_fill(
        ~torch.ones(7, 7, dtype=torch.bool).tril(), float("-inf")
    )
    arguments = (r, query, key, value, gradient)
    expected = relevance_step(*arguments)
    given_lse = relevance_step(*arguments, lse=logits.logsumexp(-1))
    torch.testing.assert_close(given_lse, expected)
    halved = relevance_step(*arguments, lse=logits.logsumexp(-1) + torch.log(torch.tensor(2.0)))
    torch.testing.assert_close(halved - r, (expected - r) / 2)


def test_memory_does_not_hold_a_map() -> None:
    """The largest tensor holds the queries of one chunk."""
    length, heads, chunk = 1024, 4, 16
    query, key, value = (torch.randn(1, heads, length, 8) for _ in range(3))
    gradient = torch.randn(1, 1, heads, length, 8)
    with LargestTensor() as largest:
        relevance_step(torch.rand(1, 1, length), query, key, value, gradient, chunk_size=chunk)
    assert largest.elements <= heads * chunk * length


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"key": torch.zeros(1, 3, 5, 4)}, "heads"),
        ({"value": torch.zeros(1, 2, 4, 4)}, "value"),
        ({"query": torch.zeros(1, 4, 3, 4)}, "query"),
        ({"grad_output": None}, "grad_output"),
        ({"grad_output": torch.zeros(2, 1, 4, 5, 4)}, "grad_output"),
        ({"reduction": "largest"}, "reduction"),
    ],
)
def test_wrong_shapes(change: dict[str, Any], word: str) -> None:
    arguments: dict[str, Any] = {
        "r": torch.zeros(1, 1, 5),
        "query": torch.zeros(1, 4, 5, 4),
        "key": torch.zeros(1, 2, 5, 4),
        "value": torch.zeros(1, 2, 5, 4),
        "grad_output": torch.zeros(1, 1, 4, 5, 4),
    }
    with one_sentence(ValueError, word):
        relevance_step(**{**arguments, **change})


def test_half_precision_is_computed_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 2, 33, 8, generator=generator).bfloat16() for _ in range(3)]
    gradient = torch.randn(1, 1, 2, 33, 8, generator=generator).bfloat16()
    r = torch.rand(1, 1, 33, generator=generator)
    half = relevance_step(r, *tensors, gradient)
    single = relevance_step(r, *(tensor.float() for tensor in tensors), gradient.float())
    assert half.dtype == torch.float32
    assert torch.equal(half, single)


def test_the_signature_is_keyword_only_beyond_the_tensors() -> None:
    kinds = [parameter.kind for parameter in inspect.signature(relevance_step).parameters.values()]
    assert kinds[:5] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 5
    assert set(kinds[5:]) == {inspect.Parameter.KEYWORD_ONLY}
