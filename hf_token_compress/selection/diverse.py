"""Tokens that are important and unlike those already kept.

A token is worth its importance times (1 − its largest cosine to what is kept), the product of
ZOO-Prune. Where an object covers many similar tokens, one or two of them suffice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

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
    importance = scaled_importance(candidates.scores)[:, None]  # [N, 1]
    directions = normalize(_sketch(candidates.embeddings), dim=-1)  # [N, D]
    # The product of a row of `weighted` and one of `directions` is importance × (1 − cosine).
    directions = pad(directions, (0, 1), value=1.0)  # [N, D + 1]
    weighted = directions * importance
    weighted[:, :-1].neg_()
    kept = candidates.kept.nonzero().flatten()  # [K]
    values = importance.flatten() * 2  # as if at cosine -1 to what is kept, [N]
    if len(kept) > 0:
        values = _lowered(values, weighted, directions, kept)
    ranks = _pool_ranks(len(values), candidates.count).to(values.device)  # [P]
    not_better = torch.ones_like(ranks, dtype=torch.bool).expand(len(ranks), -1).triu()  # [P, P]
    chosen: list[Tensor] = []
    missing = candidates.count
    for remaining in range(min(rounds, missing), 0, -1):
        pool = values.argsort(descending=True, stable=True)[ranks]  # [P]
        products = weighted[pool] @ directions[pool].T  # [P, P]
        # Only better tokens of the pool, which come first, lower a value.
        corrected = products.masked_fill_(not_better, torch.inf).amin(dim=1)
        corrected = torch.minimum(values[pool], corrected)  # [P]
        best = pool[corrected.topk(math.ceil(missing / remaining)).indices]
        chosen.append(best)
        missing -= len(best)
        if missing > 0:
            values = _lowered(values, weighted, directions, best)
    return torch.cat(chosen)


def _pool_ranks(count: int, wanted: int) -> Tensor:
    """Which of `count` tokens in order of value make a pool, int64 [P], ascending."""
    top = max(wanted, _LEAST_POOL)
    step = math.ceil(max(count - top, 1) / top)
    return torch.cat([torch.arange(min(top, count)), torch.arange(top, max(top, count), step)])


def _lowered(values: Tensor, weighted: Tensor, directions: Tensor, kept: Tensor) -> Tensor:
    """Values of tokens, float [N], once the tokens `kept`, int64 [K], are kept too."""
    products = weighted @ directions[kept].T  # [N, K]
    return torch.minimum(values, products.amin(dim=1)).index_fill_(0, kept, -torch.inf)


def _sketch(embeddings: Tensor) -> Tensor:
    """Embeddings in fewer dimensions, where cosines are nearly the same.

    Feature hashing (arXiv 0902.2206): dimensions are added up with random signs.

    Args:
        embeddings: float32 [N, D].

    Returns:
        float32 [N, at most 512].
    """
    count, width = embeddings.shape
    if width <= _SKETCH_WIDTH:
        return embeddings
    generator = torch.Generator().manual_seed(0)
    # Whatever the default dtype and device are: other draws would be other signs.
    drawn = torch.randn(width, generator=generator, dtype=torch.float32, device="cpu")
    signed = pad(embeddings * drawn.sign().to(embeddings), (0, -width % _SKETCH_WIDTH))
    return signed.view(count, -1, _SKETCH_WIDTH).sum(dim=1)


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


def scaled_importance(scores: Tensor) -> Tensor:
    """Scores, float [N], scaled to [0, 1]; all 1 if they are equal."""
    low, high = scores.aminmax()
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
