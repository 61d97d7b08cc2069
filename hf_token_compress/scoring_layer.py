"""What the attention of one decoder layer computes with, for the instruction tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ScoringLayer:
    """Queries, keys and mask of a decoder layer, as the model's own code computes them.

    Attributes:
        query: float [Q, heads, head_dim], the instruction tokens of all samples, after RoPE.
        key: float [B, S, key_heads, head_dim], all tokens, after RoPE; heads is a multiple of
            key_heads.
        sample: int64 [Q], sample of each query.
        position: int64 [Q], position of each query in its sample.
        key_mask: bool [B, S], False on padding.
        scaling: Factor on the attention logits.
        index: Number of the layer.
        sliding_window: Number of keys that a query sees, its own included; None for all.
        mask: bool [Q, S], the keys that each query sees; None where that follows from
            causal order, padding and `sliding_window`.
        softcap: Logits are softcap * tanh(logits / softcap); None for logits as they are.
        sinks: float [heads], one further logit that takes attention from all keys; None without.
        query_counts: How many queries each sample has, if they are in the order of the samples;
            None where the host does not know.
    """

    query: Tensor
    key: Tensor
    sample: Tensor
    position: Tensor
    key_mask: Tensor
    scaling: float
    index: int = 0
    sliding_window: int | None = None
    mask: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    query_counts: tuple[int, ...] | None = None
