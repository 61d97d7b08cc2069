from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from pairs import assert_same

from hf_token_compress.mapper import label_divergence, relevance_label

pytestmark = pytest.mark.core

relevances = st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=40).filter(
    lambda values: max(values) > 1e-3
)


def test_the_label_of_the_paper_by_hand() -> None:
    label = relevance_label(torch.tensor([3.0, 1.0, 0.5, 5.0]))
    assert_same(label, torch.tensor([0.375, 0.0, 0.0, 0.625]))


@given(values=relevances, mask_ratio=st.floats(0, 0.95), temperature=st.floats(0.25, 4))
def test_a_label_is_a_distribution_over_the_most_relevant_tokens(
    values: list[float], mask_ratio: float, temperature: float
) -> None:
    relevance = torch.tensor(values)
    label = relevance_label(relevance, mask_ratio=mask_ratio, temperature=temperature)
    assert_same(label.sum(), torch.tensor(1.0))
    kept = len(values) - int(mask_ratio * len(values))
    assert int((label > 0).sum()) <= kept
    lowest_kept = relevance.sort(descending=True).values[kept - 1]
    assert (label[relevance < lowest_kept] == 0).all()
    # A more relevant token never has less of the label.
    order = relevance.argsort()
    assert (label[order].diff() >= -1e-6)[relevance[order].diff() > 0].all()


@given(values=relevances, factor=st.floats(0.01, 100))
def test_the_scale_of_the_relevance_does_not_matter(values: list[float], factor: float) -> None:
    relevance = torch.tensor(values, dtype=torch.float64)
    assert_same(relevance_label(relevance * factor), relevance_label(relevance))


def test_temperature_sharpens_and_negative_values_count_as_zero() -> None:
    relevance = torch.tensor([-5.0, 1.0, 2.0])
    assert_same(
        relevance_label(relevance, mask_ratio=0.0, temperature=0.5),
        torch.tensor([0.0, 0.2, 0.8]),
    )


def test_one_huge_value_does_not_overflow() -> None:
    label = relevance_label(torch.tensor([1e30, 1e20]), mask_ratio=0.0, temperature=0.1)
    assert_same(label, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("values", "options", "word"),
    [
        ([1.0, float("nan")], {}, "NaN"),
        ([1.0, float("inf")], {}, "infinite"),
        ([0.0, 0.0], {}, "zero"),
        ([-1.0], {}, "zero"),
        ([1.0], {"mask_ratio": 1.0}, "mask_ratio"),
        ([1.0], {"temperature": 0.0}, "temperature"),
    ],
)
def test_relevance_that_makes_no_label(
    values: list[float], options: dict[str, Any], word: str
) -> None:
    with one_sentence(ValueError, word):
        relevance_label(torch.tensor(values), **options)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_divergence_equals_that_of_torch(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = [relevance_label(torch.rand(size, generator=generator) + 0.1) for size in sizes]
    logits = [torch.randn(size, generator=generator) for size in sizes]
    found = label_divergence(labels, logits)
    for label, logit, divergence in zip(labels, logits, found, strict=True):
        expected = torch.nn.functional.kl_div(logit.log_softmax(0), label, reduction="sum")
        assert_same(divergence, expected)
    perfect = label_divergence(labels, [(label + 1e-30).log() for label in labels])
    assert_same(perfect, torch.zeros(len(sizes)))
