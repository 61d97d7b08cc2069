"""Tokens that are important and unlike those already kept: the exact rule and its fast form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from hf_token_compress.selection import Candidates, select_visual_tokens
from hf_token_compress.selection.diverse import diverse, diverse_batch, greedy_diverse
from hf_token_compress.selection.floors import groups_of_visuals

pytestmark = pytest.mark.core


class LoggingMode(TorchDispatchMode):
    """Notes the names of operations on the tokens: no views, and nothing that the host prepares."""

    free = (
        "view",
        "slice",
        "select",
        "expand",
        "permute",
        "unsqueeze",
        "squeeze",
        "transpose",
        "unsafe_view",
        "scalar_tensor",
        "detach",
        "arange",
        "randn",
    )

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if not name.lstrip("_").startswith(self.free):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@st.composite
def candidates(draw: st.DrawFn, most: int = 30, width: int | None = None) -> Candidates:
    count = draw(st.integers(2, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scores = torch.rand(count, generator=generator)
    width = draw(st.integers(2, 12)) if width is None else width
    embeddings = torch.randn(count, width, generator=generator)
    kept = torch.zeros(count, dtype=torch.bool)
    kept[torch.randperm(count, generator=generator)[: draw(st.integers(0, count - 1))]] = True
    wanted = draw(st.integers(1, count - int(kept.sum())))
    return Candidates(scores, kept, wanted, lambda: embeddings)


def one_by_one(given: Candidates) -> list[int]:
    """The rule as it is written, in double precision and plain loops."""
    scores = given.scores.double()
    importance = (scores - scores.min()) / (scores.max() - scores.min())
    vectors = given.embeddings.double()
    kept = given.kept.nonzero().flatten().tolist()
    chosen: list[int] = []

    def value(token: int) -> float:
        cosines = [
            float(torch.cosine_similarity(vectors[token], vectors[other], dim=0)) for other in kept
        ]
        return float(importance[token]) * (1 - max(cosines, default=-1.0))

    for _ in range(given.count):
        best = max((token for token in range(len(scores)) if token not in kept), key=value)
        kept.append(best)
        chosen.append(best)
    return chosen


@given(candidates(most=12))
def test_the_exact_rule_is_the_rule_as_it_is_written(own: Candidates) -> None:
    assert greedy_diverse(own).tolist() == one_by_one(own)


@given(candidates())
def test_with_a_round_for_each_token_the_fast_form_is_exact(own: Candidates) -> None:
    assert diverse(own, rounds=own.count).tolist() == greedy_diverse(own).tolist()


@given(candidates())
def test_the_fast_form_chooses_as_many_as_asked(own: Candidates) -> None:
    chosen = diverse(own)
    assert len(chosen) == len(chosen.unique()) == own.count
    assert not own.kept[chosen].any()


@given(batch=st.lists(candidates(width=7), min_size=1, max_size=4))
def test_prompts_of_a_batch_choose_as_alone(batch: list[Candidates]) -> None:
    arguments = (
        pad_sequence([own.scores for own in batch], batch_first=True),
        pad_sequence([own.kept for own in batch], batch_first=True),
        [int(own.kept.sum()) for own in batch],
        [own.count for own in batch],
        [len(own.scores) for own in batch],
        pad_sequence([own.embeddings for own in batch], batch_first=True),
    )
    chosen = diverse_batch(*arguments)
    for own, found in zip(batch, chosen, strict=True):
        assert found.nonzero().flatten().tolist() == sorted(diverse(own).tolist())


def blobs(copies: int, kinds: int = 12, width: int = 64) -> tuple[Tensor, Tensor]:
    """Tokens of `kinds` unlike things, `copies` almost equal ones each, and scores by thing."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(kinds, width, generator=generator)
    noise = torch.randn(kinds * copies, width, generator=generator)
    embeddings = centres.repeat_interleave(copies, dim=0) + 0.02 * noise
    scores = torch.linspace(2, 1, kinds).repeat_interleave(copies)
    return scores + 0.01 * torch.rand(kinds * copies, generator=generator), embeddings


@pytest.mark.parametrize("rule", [diverse, greedy_diverse])
def test_every_thing_keeps_a_token_where_scores_alone_keep_few(rule: object) -> None:
    scores, embeddings = blobs(copies=20)
    things = torch.arange(12).repeat_interleave(20)
    options = {"embed": lambda: embeddings}
    best = select_visual_tokens(scores, 11, **options)
    unlike = select_visual_tokens(scores, 11, rule=rule, **options)
    assert len(things[best].unique()) == 1
    # The least important thing has no importance.
    assert things[unlike].tolist() == list(range(11))


def worth(own: Candidates, chosen: Tensor) -> float:
    """Mean over all tokens of the largest cosine to a chosen one, weighted by importance."""
    unit = torch.nn.functional.normalize(own.embeddings, dim=-1)
    nearest = (unit @ unit[chosen].T).amax(dim=1)
    importance = own.scores - own.scores.min()
    return float((importance * nearest).sum() / importance.sum())


@pytest.mark.parametrize("width", [64, 1200])
def test_the_fast_form_is_close_to_the_exact_rule(width: int) -> None:
    """Wide embeddings are compared after a random projection."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(40, width, generator=generator)
    noise = torch.randn(400, width, generator=generator)
    embeddings = centres.repeat_interleave(10, dim=0) + 0.8 * noise
    own = Candidates(
        torch.rand(400, generator=generator),
        torch.zeros(400, dtype=torch.bool),
        60,
        lambda: embeddings,
    )
    exact, fast, best = greedy_diverse(own), diverse(own), own.scores.topk(60).indices
    gained = worth(own, exact) - worth(own, best)
    assert gained > 0.03
    assert worth(own, fast) - worth(own, best) > 0.95 * gained


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_does_not_change_the_choice(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(200, 1000, generator=generator)
    scores = torch.rand(200, generator=generator)
    own = Candidates(scores, torch.zeros(200, dtype=torch.bool), 30, lambda: embeddings)
    chosen, before = diverse(own), torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert torch.equal(diverse(own), chosen)
    finally:
        torch.set_default_dtype(before)


def operations(own: Candidates) -> int:
    """Operations of the fast form."""
    with LoggingMode() as mode:
        diverse(own)
    return len(mode.names)


@pytest.mark.parametrize("width", [64, 1200])
def test_operations_do_not_grow_with_the_budget(width: int) -> None:
    """Each launches about one kernel on a device."""
    embeddings = torch.randn(900, width)
    kept = torch.zeros(900, dtype=torch.bool)
    kept[:5] = True
    small, large = (
        operations(Candidates(torch.rand(900), kept, count, lambda: embeddings))
        for count in (40, 400)
    )
    assert small == large <= 60


def test_equal_scores_leave_diversity_alone() -> None:
    _, embeddings = blobs(copies=3)
    keep = select_visual_tokens(torch.ones(36), 12, rule=diverse, embed=lambda: embeddings)
    assert keep.view(12, 3).sum(1).tolist() == [1] * 12


@given(own=candidates(), floor=st.integers(0, 3), budget=st.integers(0, 30), data=st.data())
def test_budget_and_minimums_hold(
    own: Candidates, floor: int, budget: int, data: st.DataObject
) -> None:
    count = len(own.scores)
    cut = data.draw(st.integers(1, count - 1))
    lengths = [cut, count - cut]
    keep = select_visual_tokens(
        own.scores,
        budget,
        floors=[(groups_of_visuals(lengths), floor)],
        rule=diverse,
        embed=lambda: own.embeddings,
    )
    needed = sum(min(floor, length) for length in lengths)
    assert int(keep.sum()) == min(max(budget, needed), count)
    for part, length in zip(keep.split(lengths), lengths, strict=True):
        assert int(part.sum()) >= min(floor, length)
