"""Tokens that are important and unlike those already kept.

A token is worth its importance times (1 − its largest cosine to what is kept), the product of
ZOO-Prune. Where an object covers many similar tokens, one or two of them suffice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from torch.nn.utils.rnn import pad_sequence

from ..device_copy import to_device
from ..padding import past_end
from .candidates import Candidates

ROUNDS = 2
"""Rounds in which `diverse` spends a budget."""

_LEAST_POOL = 128
"""Half the tokens, at least, among which a round chooses."""

_SKETCH_WIDTH = 512
"""Dimensions, at most, in which `diverse` compares embeddings."""


def diverse(candidates: Candidates, rounds: int = ROUNDS) -> Tensor:
    """Choose tokens in a few rounds that together come close to `greedy_diverse`.

    Each round compares a pool of tokens: the most valuable ones, and others at even steps of value.
    It lowers the value of those that resemble a better one of the pool, and keeps the best. With as
    many rounds as tokens to choose it is `greedy_diverse`, except that embeddings of more than 512
    dimensions are compared after a random projection.

    Returns:
        int64 [count].
    """
    plan = _Plan.of(
        [len(candidates.scores)],
        [int(candidates.kept.sum())],
        [candidates.count],
        rounds,
        candidates.scores.device,
    )
    tensors = candidates.scores[None], candidates.kept[None], candidates.embeddings[None]
    return torch.cat([best for best, _ in _chosen(plan, *tensors)], dim=1)[0]


def diverse_batch(
    scores: Tensor,
    kept: Tensor,
    kept_counts: Sequence[int],
    counts: Sequence[int],
    lengths: Sequence[int],
    embeddings: Tensor,
    rounds: int = ROUNDS,
) -> Tensor:
    """As `diverse`, for P prompts of at most N visual tokens, without waiting for the device.

    Args:
        scores: float [P, N], N of the prompt that has most; anything on padding.
        kept: bool [P, N], tokens that are kept already; False on padding.
        kept_counts: How many these are of each prompt.
        counts: How many more tokens to choose of each prompt.
        lengths: How many visual tokens each prompt has.
        embeddings: float32 [P, N, D]; anything finite on padding.
        rounds: Rounds in which the budget is spent.

    Returns:
        bool [P, N], the tokens that are chosen.
    """
    plan = _Plan.of(lengths, kept_counts, counts, rounds, scores.device)
    # One place more takes what is chosen for prompts that miss fewer tokens than others.
    chosen = torch.zeros(len(scores), scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
    for best, spare in _chosen(plan, scores, kept, embeddings):
        index = best if spare is None else best.masked_fill(spare, scores.shape[1])
        chosen.scatter_(1, index, True)
    return chosen[:, :-1]


@dataclass(frozen=True)
class _Plan:
    """What the host knows of a selection for P prompts of at most N tokens.

    Attributes:
        most_kept: Most tokens that a prompt keeps already.
        takes: For each round, most tokens that it chooses of a prompt, K.
        ranks: int64 [P, pool], which tokens in order of value make the pool of a prompt.
        missing: bool [P, N], True on padding; None if there is none, as for those that follow.
        unkept: bool [P, most_kept], True past the tokens that a prompt keeps already.
        unpooled: bool [P, pool], True past the pool of a prompt.
        spare: For each round, bool [P, K], True past the tokens that it chooses of a prompt.
    """

    most_kept: int
    takes: list[int]
    ranks: Tensor
    missing: Tensor | None
    unkept: Tensor | None
    unpooled: Tensor | None
    spare: list[Tensor | None]

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        kept_counts: Sequence[int],
        counts: Sequence[int],
        rounds: int,
        device: torch.device,
    ) -> _Plan:
        pools = [_pool_ranks(*pair) for pair in zip(lengths, counts, strict=True)]
        ranks = pad_sequence(pools, batch_first=True)  # [P, pool]
        takes = [_takes(count, rounds) for count in counts]
        of_rounds = [list(own) for own in zip_longest(*takes, fillvalue=0)]
        masks = [_past(own) for own in (lengths, kept_counts, [*map(len, pools)], *of_rounds)]
        given = [mask for mask in masks if mask is not None]
        ranks, *moved = to_device([ranks, *given], device)
        found = iter(moved)
        missing, unkept, unpooled, *spare = (
            None if mask is None else next(found) for mask in masks
        )
        most = [max(own) for own in of_rounds]
        return cls(max(kept_counts), most, ranks, missing, unkept, unpooled, spare)


def _takes(count: int, rounds: int) -> list[int]:
    """How many of `count` tokens each of at most so many rounds chooses."""
    takes: list[int] = []
    for remaining in range(min(rounds, count), 0, -1):
        takes.append(math.ceil((count - sum(takes)) / remaining))
    return takes


def _past(counts: Sequence[int]) -> Tensor | None:
    """Places past the count of each prompt, bool [P, largest count]; None if there are none."""
    return None if len(set(counts)) == 1 else past_end(counts)


def _pool_ranks(count: int, wanted: int) -> Tensor:
    """Which of `count` tokens in order of value make a pool, int64 [pool], ascending."""
    top = max(wanted, _LEAST_POOL)
    step = math.ceil(max(count - top, 1) / top)
    return torch.cat([torch.arange(min(top, count)), torch.arange(top, max(top, count), step)])


def _chosen(
    plan: _Plan, scores: Tensor, kept: Tensor, embeddings: Tensor
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The tokens that each round chooses, int64 [P, K], and which are spare, bool [P, K]."""
    if plan.missing is not None:
        scores = scores.masked_fill(plan.missing, 0.0)
    importance = scaled_importance(scores, plan.missing).unsqueeze(-1)  # [P, N, 1]
    directions = normalize(_sketch(embeddings), dim=-1)  # [P, N, D]
    # The product of a row of `weighted` and one of `directions` is importance × (1 − cosine).
    directions = pad(directions, (0, 1), value=1.0)  # [P, N, D + 1]
    weighted = directions * importance
    weighted[..., :-1].neg_()
    values = importance.squeeze(-1) * 2  # as if at cosine -1 to what is kept, [P, N]
    if plan.missing is not None:
        values = values.masked_fill(plan.missing, -torch.inf)

    def lowered(index: Tensor, none: Tensor | None) -> Tensor:
        """Values once the tokens `index`, [P, K], are kept too, but those of `none`."""
        products = weighted @ _rows(directions, index).mT  # [P, N, K]
        if none is not None:
            products = products.masked_fill_(none.unsqueeze(1), torch.inf)
        result = torch.minimum(values, products.amin(dim=-1))  # [P, N]
        if none is None:
            return result.scatter_(1, index, -torch.inf)
        return result.scatter_(1, index, torch.where(none, result.gather(1, index), -torch.inf))

    if plan.most_kept > 0:
        first = kept.byte().argsort(dim=1, descending=True, stable=True)[:, : plan.most_kept]
        values = lowered(first, plan.unkept)
    size = plan.ranks.shape[1]
    not_better = torch.ones(size, size, dtype=torch.bool, device=scores.device).triu()
    for number, (take, spare) in enumerate(zip(plan.takes, plan.spare, strict=True)):
        pool = values.argsort(dim=1, descending=True, stable=True).gather(1, plan.ranks)
        products = _rows(weighted, pool) @ _rows(directions, pool).mT  # [P, pool, pool]
        # Only better tokens of the pool, which come first, lower a value.
        corrected = products.masked_fill_(not_better, torch.inf).amin(dim=-1)  # [P, pool]
        corrected = torch.minimum(values.gather(1, pool), corrected)
        if plan.unpooled is not None:
            corrected = corrected.masked_fill_(plan.unpooled, -torch.inf)
        best = pool.gather(1, corrected.topk(take, dim=1).indices)  # [P, take]
        yield best, spare
        if number + 1 < len(plan.takes):
            values = lowered(best, spare)


def _rows(vectors: Tensor, index: Tensor) -> Tensor:
    """Vectors of each prompt, [P, N, D], at an index, int64 [P, K] → [P, K, D]."""
    prompts = torch.arange(len(index), device=index.device)
    return vectors[prompts[:, None], index]


def _sketch(embeddings: Tensor) -> Tensor:
    """Embeddings in fewer dimensions, where cosines are nearly the same.

    Feature hashing (arXiv 0902.2206): dimensions are added up with random signs.

    Args:
        embeddings: float32 [..., D].

    Returns:
        float32 [..., at most 512].
    """
    width = embeddings.shape[-1]
    if width <= _SKETCH_WIDTH:
        return embeddings
    generator = torch.Generator().manual_seed(0)
    # Whatever the default dtype and device are: other draws would be other signs.
    drawn = torch.randn(width, generator=generator, dtype=torch.float32, device="cpu")
    (signs,) = to_device([drawn.sign()], embeddings.device)
    signed = embeddings * signs.to(embeddings.dtype)
    if width % _SKETCH_WIDTH > 0:
        signed = pad(signed, (0, -width % _SKETCH_WIDTH))
    return signed.unflatten(-1, (-1, _SKETCH_WIDTH)).sum(dim=-2)


def greedy_diverse(candidates: Candidates) -> Tensor:
    """One token after another, the best by importance × (1 − largest cosine to what is kept).

    Importance is the score, scaled to [0, 1] over the prompt's visual tokens. Cosines are those of
    the tokens' embeddings. This is the exact rule; its steps are sequential.

    Returns:
        int64 [count], in the order in which they were chosen.
    """
    importance = scaled_importance(candidates.scores)  # [N]
    directions = normalize(candidates.embeddings, dim=-1)  # [N, D]
    kept = candidates.kept.clone()
    largest = largest_cosine(directions, directions[kept])  # [N]
    chosen = []
    for _ in range(candidates.count):
        values = (importance * (1 - largest)).masked_fill(kept, -torch.inf)  # [N]
        best = values.argmax()
        chosen.append(best)
        kept[best] = True
        largest = torch.maximum(largest, directions @ directions[best])
    return torch.stack(chosen)


def scaled_importance(scores: Tensor, missing: Tensor | None = None) -> Tensor:
    """Scores of a prompt, float [..., N], scaled to [0, 1]; all 1 if they are equal.

    Where `missing`, bool [..., N], is True there is no token; what is returned there is finite.
    """
    low, high = (
        scores if missing is None else scores.masked_fill(missing, nothing)
        for nothing in (torch.inf, -torch.inf)
    )
    low, high = low.amin(dim=-1, keepdim=True), high.amax(dim=-1, keepdim=True)  # [..., 1] each
    scaled = (scores - low) / (high - low)
    return torch.where(high > low, scaled, 1.0)


def largest_cosine(directions: Tensor, kept: Tensor) -> Tensor:
    """Largest cosine of each token to the kept ones, float [N]; -1 if there are none.

    Args:
        directions: float [N, D], of length 1.
        kept: float [K, D], of length 1.
    """
    if len(kept) == 0:
        return directions.new_full((len(directions),), -1.0)
    return (directions @ kept.T).amax(dim=1)
