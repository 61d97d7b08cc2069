"""The parts of a decoder layer that scoring needs, without the model around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .evaluation_mode import evaluation_mode

Projection = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ScoringLayer:
    """Query and key path of a decoder layer.

    Values, output projection and MLP are not needed. Modules are called and their weights are not
    read, so quantised, offloaded and LoRA-wrapped layers work.

    Attributes:
        input_norm: [..., D] → [..., D].
        query_projection: [..., D] → [..., heads * head_dim].
        key_projection: [..., D] → [..., key_heads * head_dim].
        rotary: (hidden [B, S, D], position_ids [A, B, S] or [B, S]) → cos, sin, each [B, S, R],
            R ≤ head_dim.
        head_dim: Size of one head.
        scaling: Factor on the attention logits.
        query_norm, key_norm: Norms of single heads before RoPE; None if the family has none.
        sliding_window: Number of keys that a query sees, its own included; None for all.
    """

    input_norm: Projection
    query_projection: Projection
    key_projection: Projection
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    head_dim: int
    scaling: float
    query_norm: Projection | None = None
    key_norm: Projection | None = None
    sliding_window: int | None = None

    def queries(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries after RoPE: hidden [Q, D], cos and sin [Q, R] → [Q, heads, head_dim]."""
        return self._heads(self.query_projection, self.query_norm, hidden, cos, sin)

    def keys(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Keys after RoPE: hidden [B, S, D], cos and sin [B, S, R] → [B, S, heads, head_dim]."""
        return self._heads(self.key_projection, self.key_norm, hidden, cos, sin)

    @contextmanager
    def in_evaluation_mode(self) -> Iterator[None]:
        """Switch off dropout, such as that of LoRA layers, inside the `with` block.

        Scores are then the same in training and evaluation, and draw no random numbers.
        """
        parts = (self.input_norm, self.query_projection, self.key_projection)
        with evaluation_mode(part for part in parts if isinstance(part, nn.Module)):
            yield

    def _heads(
        self,
        projection: Projection,
        norm: Projection | None,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        heads = projection(hidden).unflatten(-1, (-1, self.head_dim))  # [..., heads, head_dim]
        if norm is not None:
            heads = norm(heads)
        return apply_rotary(heads, cos.unsqueeze(-2), sin.unsqueeze(-2))


def apply_rotary(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, pairing dimension i with i + R/2.

    `heads` is [..., head_dim], `cos` and `sin` are [..., R]; dimensions past R stay as they are.
    """
    rotary_dim = cos.shape[-1]
    rotated, rest = heads[..., :rotary_dim], heads[..., rotary_dim:]
    first, second = rotated.chunk(2, dim=-1)
    quarter_turn = torch.cat([-second, first], dim=-1)
    return torch.cat([rotated * cos + quarter_turn * sin, rest], dim=-1)
