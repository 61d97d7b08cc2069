"""The scoring kernel against a dense computation in float64."""

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

from hf_token_compress.kernels.instruction_attention import (
    attention_statistics,
    instruction_attention,
    torch_reference,
)

pytestmark = pytest.mark.core


def dense(
    query: Tensor,
    key: Tensor,
    sample: Tensor,
    position: Tensor,
    mask: Tensor,
    scaling: float,
    window: int | None,
) -> Tensor:
    """Mean attention [B, heads, S], one query and head at a time, in float64."""
    everything = torch.ones_like(mask)
    return dense_statistics(query, key, sample, position, mask, scaling, window, everything)[0]


def dense_statistics(
    query: Tensor,
    key: Tensor,
    sample: Tensor,
    position: Tensor,
    mask: Tensor,
    scaling: float,
    window: int | None,
    among: Tensor,
) -> Tensor:
    """Mean attention and largest share of the keys in `among`, [2, B, heads, S]."""
    queries, heads, _ = query.shape
    samples, length, key_heads, _ = key.shape
    total = torch.zeros(samples, heads, length, dtype=torch.float64)
    peak = torch.zeros_like(total)
    for index in range(queries):
        own, at = int(sample[index]), int(position[index])
        seen = [
            place
            for place in range(length)
            if mask[own, place] and place <= at and (window is None or at - place < window)
        ]
        if not seen:
            continue
        for head in range(heads):
            keys = key[own, seen, head // (heads // key_heads)].double()
            logits = keys @ query[index, head].double() * scaling
            attention = logits.softmax(0)
            total[own, head, seen] += attention
            attention = attention * among[own, seen]
            share = attention / attention.sum().clamp(min=1e-9)
            peak[own, head, seen] = torch.maximum(peak[own, head, seen], share)
    counts = torch.bincount(sample, minlength=samples).clamp(min=1)
    return torch.stack([total / counts[:, None, None], peak])


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    samples, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    key_heads, group = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 4, 7]))
    head_dim, queries = draw(st.sampled_from([2, 8])), draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    mask = torch.rand(samples, length, generator=generator) < 0.7
    key = torch.randn(samples, length, key_heads, head_dim, generator=generator)
    key[~mask] = float("nan")
    return {
        "query": torch.randn(queries, key_heads * group, head_dim, generator=generator),
        "key": key,
        "query_sample": torch.randint(0, samples, (queries,), generator=generator),
        "query_position": torch.randint(0, length, (queries,), generator=generator),
        "key_mask": mask,
        "scaling": draw(st.sampled_from([0.3, 1.0])),
        "sliding_window": draw(st.none() | st.integers(1, 13)),
    }


@given(problem=problems(), chunk=st.integers(1, 12))
def test_equals_the_dense_computation(problem: dict[str, Any], chunk: int) -> None:
    """Grouped heads, NaN padding, windows, queries without keys, samples without queries."""
    expected = dense(*problem.values())
    per_head = instruction_attention(**problem, per_head=True, chunk_size=chunk)
    assert per_head.dtype == torch.float32
    torch.testing.assert_close(per_head.double(), expected, rtol=1e-5, atol=1e-6)
    mean = instruction_attention(**problem, chunk_size=chunk)
    torch.testing.assert_close(mean.double(), expected.mean(1), rtol=1e-5, atol=1e-6)


@given(problem=problems(), chunk=st.integers(1, 12), seed=st.integers(0, 99))
def test_mean_and_peak_equal_the_dense_computation(
    problem: dict[str, Any], chunk: int, seed: int
) -> None:
    among = torch.rand(problem["key_mask"].shape, generator=torch.Generator().manual_seed(seed))
    problem["scaling"] *= 8  # so that some queries give these keys nearly nothing
    expected = dense_statistics(*problem.values(), among < 0.5)
    found = attention_statistics(**problem, among=among < 0.5, chunk_size=chunk)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def ordered(problem: dict[str, Any]) -> dict[str, Any]:
    """The problem with its queries in the order of their samples, and with their numbers."""
    order = problem["query_sample"].sort(stable=True).indices
    counts = torch.bincount(problem["query_sample"], minlength=len(problem["key"])).tolist()
    own = {name: problem[name][order] for name in ("query", "query_sample", "query_position")}
    return {**problem, **own, "query_counts": counts}


@given(problem=problems())
def test_numbers_of_queries_change_nothing(problem: dict[str, Any]) -> None:
    expected = instruction_attention(**problem)
    assert torch.equal(instruction_attention(**ordered(problem)), expected)


@given(problem=problems(), heads=st.booleans())
def test_an_accelerator_takes_all_samples_at_once(problem: dict[str, Any], heads: bool) -> None:
    """The blocks of an accelerator, on a CPU, in chunks that are too small for all queries."""
    problem = ordered(problem)
    among = torch.arange(problem["key"].shape[1]).remainder(2).eq(0).expand_as(problem["key_mask"])
    expected = attention_statistics(**problem, among=among)
    length = problem["key"].shape[1] * problem["query"].shape[1] * len(problem["key"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_reference, "_few_launches", lambda _: True)
        if heads:
            patch.setattr(torch_reference, "_CHUNK_BYTES", 8 * length)
        found = attention_statistics(**problem, among=among)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_sample_is_a_distribution_over_visible_keys() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(*s, generator=generator) for s in ((5, 4, 8), (2, 9, 2, 8)))
    sample, position = torch.tensor([0, 0, 0, 0, 0]), torch.tensor([3, 4, 5, 8, 6])
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :2] = False
    result = instruction_attention(query, key, sample, position, mask)
    assert result[0].sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (result[0, :2] == 0).all()
    assert (result[0, 2:] > 0).all()
    assert (result[1] == 0).all()


def test_the_default_scaling_is_that_of_attention() -> None:
    query, key = torch.randn(2, 4, 16), torch.randn(1, 5, 4, 16)
    arguments = (query, key, torch.tensor([0, 0]), torch.tensor([4, 3]))
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(
        instruction_attention(*arguments, mask),
        instruction_attention(*arguments, mask, scaling=0.25),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_single_precision(dtype: torch.dtype) -> None:
    """Means over hundreds of queries keep shares that half precision would lose."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(300, 2, 8, generator=generator).to(dtype)
    key = torch.randn(1, 600, 1, 8, generator=generator).to(dtype)
    sample, position = torch.zeros(300, dtype=torch.long), torch.arange(300, 600)
    mask = torch.ones(1, 600, dtype=torch.bool)
    result = instruction_attention(query, key, sample, position, mask, scaling=0.35)
    single = instruction_attention(query.float(), key.float(), sample, position, mask, scaling=0.35)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, single, rtol=2e-2, atol=1e-6)
    assert result.sum().item() == pytest.approx(1.0, abs=1e-4)


def test_memory_does_not_hold_queries_times_keys() -> None:
    """The largest tensor holds the queries of one chunk."""
    queries, length, heads = 512, 2048, 2
    with LargestTensor() as largest:
        instruction_attention(
            torch.randn(queries, heads, 4),
            torch.randn(1, length, heads, 4),
            torch.zeros(queries, dtype=torch.long),
            torch.full((queries,), length - 1),
            torch.ones(1, length, dtype=torch.bool),
            chunk_size=16,
        )
    assert largest.elements <= 16 * length * heads


def test_gradients_flow() -> None:
    query = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 5, 1, 4, dtype=torch.float64, requires_grad=True)
    sample, position = torch.tensor([0, 0, 1]), torch.tensor([3, 4, 2])
    mask = torch.ones(2, 5, dtype=torch.bool)
    attention = instruction_attention(query, key, sample, position, mask, scaling=0.5)
    (attention * torch.arange(5.0)).sum().backward()
    for tensor in (query, key):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_every_query_counts_the_same_with_the_default_chunk() -> None:
    default = inspect.signature(instruction_attention).parameters["chunk_size"].default
    count = 2 * default + 1
    query, key = torch.randn(count, 2, 4), torch.randn(1, count, 1, 4)
    arguments = (query, key, torch.zeros(count, dtype=torch.long), torch.arange(count))
    mask = torch.ones(1, count, dtype=torch.bool)
    expected = dense(*arguments, mask, 0.5, None).mean(1)
    torch.testing.assert_close(
        instruction_attention(*arguments, mask).double(), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"query": torch.randn(2, 3, 8)}, "heads"),
        ({"query": torch.randn(2, 4, 6)}, "head sizes"),
        ({"query_sample": torch.tensor([0])}, "query_sample"),
        ({"query_position": torch.tensor([0, 1, 2])}, "query_position"),
        ({"key_mask": torch.ones(1, 4, dtype=torch.bool)}, "key_mask"),
        ({"query_counts": [3]}, "query_counts"),
    ],
)
def test_shapes_that_do_not_fit(changes: dict[str, Tensor], word: str) -> None:
    arguments = {
        "query": torch.randn(2, 4, 8),
        "key": torch.randn(1, 5, 2, 8),
        "query_sample": torch.tensor([0, 0]),
        "query_position": torch.tensor([3, 4]),
        "key_mask": torch.ones(1, 5, dtype=torch.bool),
    }
    with one_sentence(ValueError, word):
        instruction_attention(**{**arguments, **changes})


@given(problem=problems(), seed=st.integers(0, 999))
def test_a_mask_a_soft_cap_and_sinks(problem: dict[str, Any], seed: int) -> None:
    """Against the equations, with all queries and keys in one product."""
    query, key, sample = problem["query"], problem["key"].nan_to_num(), problem["query_sample"]
    generator = torch.Generator().manual_seed(seed)
    heads = query.shape[1]
    mask = torch.rand(len(query), key.shape[1], generator=generator) < 0.5
    sinks = torch.randn(heads, generator=generator)
    found = instruction_attention(
        **{**problem, "sliding_window": None},
        mask=mask,
        softcap=1.5,
        sinks=sinks,
        per_head=True,
    )
    expected = torch.zeros(found.shape, dtype=torch.float64)
    own_keys = key[sample].repeat_interleave(heads // key.shape[2], dim=2).double()
    logits = torch.einsum("qhd,qshd->qhs", query.double(), own_keys) * problem["scaling"]
    logits = 1.5 * torch.tanh(logits / 1.5)
    visible = (mask & problem["key_mask"][sample])[:, None]  # [Q, 1, S]
    weights = logits.exp() * visible
    attention = weights / (weights.sum(-1, keepdim=True) + sinks.double().exp()[:, None])
    expected.index_add_(0, sample, attention)
    expected /= torch.bincount(sample, minlength=len(key)).clamp(min=1)[:, None, None]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_environment", [False, True])
def test_triton_refuses_what_its_kernel_does_not_take(
    by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_environment:
        monkeypatch.setenv("HF_TOKEN_COMPRESS_KERNELS", "triton")
    ones = torch.ones(1, dtype=torch.long)
    with one_sentence(ValueError, "softcap"):
        instruction_attention(
            torch.randn(1, 1, 8),
            torch.randn(1, 2, 1, 8),
            0 * ones,
            ones,
            torch.ones(1, 2, dtype=torch.bool),
            softcap=2.0,
            backend=None if by_environment else "triton",
        )
