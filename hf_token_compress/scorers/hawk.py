"""HAWK: products of queries and keys before RoPE, with a weight for each head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from ..checks import check_number
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer
from .visual_tokens import score_each_prompt


class HawkScorer(Scorer):
    """Mean product of the instruction's queries with each token's key, without RoPE and softmax.

    From HAWK (https://arxiv.org/abs/2604.07812): in each head of layer 0, the mean over the
    instruction tokens gets length 1 over the visual tokens of the prompt; heads are then added up
    with weights. Without a softmax there is no causal order: instruction tokens before an image
    count too.

    Args:
        head_weights: One weight per query head, such as those that the paper finds by switching
            heads off; by default all heads weigh the same.

    Raises:
        TypeError: They are not a list of numbers.
        ValueError: A weight is not finite; when scoring, there is not one per head.
    """

    needs = frozenset({"unrotated_layer"})

    def __init__(self, head_weights: Sequence[float] | None = None) -> None:
        if not isinstance(head_weights, Sequence | None):
            kind = type(head_weights).__name__
            raise TypeError(f"head_weights must be a list of numbers, not {kind}.")
        for weight in head_weights or ():
            check_number("head_weights", weight, None)
        self.head_weights = None if head_weights is None else tuple(head_weights)

    @override
    def score(self, prompt: MultimodalPrompt, *, unrotated_layer: ScoringLayer) -> Tensor:
        layer = unrotated_layer
        weights = self._weights(layer.query.shape[1], layer.query.device)  # [heads]

        return score_each_prompt(
            prompt, lambda sample, positions: weights @ scores_of_heads(layer, sample, positions)
        )

    def _weights(self, heads: int, device: torch.device) -> Tensor:
        if self.head_weights is None:
            return torch.full((heads,), 1 / heads, dtype=torch.float32, device=device)
        if len(self.head_weights) != heads:
            raise ValueError(
                f"head_weights has {len(self.head_weights)} weights, but layer 0 has {heads} query "
                "heads: pass one weight for each."
            )
        return torch.tensor(self.head_weights, dtype=torch.float32, device=device)


def scores_of_heads(layer: ScoringLayer, sample: int, positions: Tensor) -> Tensor:
    """Scores of a prompt's visual tokens in each head of layer 0, float32 [heads, N].

    Args:
        layer: Layer 0 without RoPE.
        sample: Number of the prompt.
        positions: int64 [N], its visual tokens.
    """
    query = layer.query[layer.sample == sample].float().mean(dim=0)  # [heads, head_dim]
    key = layer.key[sample, positions.to(layer.key.device)].float()  # [N, key_heads, head_dim]
    # A key head serves a group of query heads.
    grouped = query.unflatten(0, (key.shape[1], -1))  # [key_heads, group, head_dim]
    products = torch.einsum("kgd,nkd->kgn", grouped, key).flatten(0, 1)  # [heads, N]
    return normalize(products, dim=1)
