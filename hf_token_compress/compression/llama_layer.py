"""A Llama-like decoder layer: norm, projections to heads, norms of heads, RoPE over halves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .probe import decoder_layers


@dataclass(frozen=True)
class LlamaLikeLayer:
    """Norm, projections, norms of single heads, and RoPE over halves of a head."""

    input_norm: Any
    query_projection: Any
    key_projection: Any
    query_norm: Any
    key_norm: Any
    rotary: Any
    head_dim: int

    @classmethod
    def of(cls, decoder: Any) -> LlamaLikeLayer:
        """Layer 0 of a decoder."""
        norm, query, key, query_norm, key_norm, rotary = leaves_of(decoder) or [None] * 6
        layer: Any = decoder_layers(decoder)[0]
        head_dim = layer.self_attn.head_dim
        return cls(norm, query, key, query_norm, key_norm, rotary, head_dim)

    def turns(self, embeds: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [B, S, rotary] each, for position ids [A, B, S] or [B, S]."""
        # Of four axes, the first counts text order; RoPE takes time, height and width.
        cos, sin = self.rotary(
            embeds, position_ids[-3:] if position_ids.ndim == 3 else position_ids
        )
        shape = embeds.shape[:2]
        return cos.expand(*shape, -1), sin.expand(*shape, -1)

    def queries(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries after RoPE: hidden [..., D], cos and sin [..., R] → [..., heads, head_dim]."""
        return self._heads(self.query_projection, self.query_norm, hidden, cos, sin)

    def keys(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Keys after RoPE: hidden [..., D], cos and sin [..., R] → [..., key_heads, head_dim]."""
        return self._heads(self.key_projection, self.key_norm, hidden, cos, sin)

    def _heads(
        self, projection: Any, norm: Any, hidden: Tensor, cos: Tensor, sin: Tensor
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


def leaves_of(decoder: Any) -> tuple[nn.Module | None, ...] | None:
    """The modules that `LlamaLikeLayer` calls; None if one is missing or is more than a leaf.

    Modules with parts, such as those of LoRA, may treat a token by its place in the sequence, and
    hooks may do anything, also those of the modules around.
    """
    layers = decoder_layers(decoder)
    if not layers:
        return None
    layer, attention = layers[0], getattr(layers[0], "self_attn", None)
    if attention is None or any(
        around._forward_pre_hooks for around in (decoder, layer, attention)
    ):
        return None
    leaves = (
        getattr(layer, "input_layernorm", None),
        getattr(attention, "q_proj", None),
        getattr(attention, "k_proj", None),
        getattr(attention, "q_norm", None),
        getattr(attention, "k_norm", None),
        getattr(decoder, "rotary_emb", None),
    )
    norm, query, key, *_, rotary = leaves
    if norm is None or rotary is None or not hasattr(attention, "head_dim"):
        return None
    if type(query) is not nn.Linear or type(key) is not nn.Linear:
        return None
    for leaf in leaves:
        if leaf is not None and (leaf._modules or leaf._forward_hooks or leaf._forward_pre_hooks):
            return None
    return leaves


def resident_weights(leaves: tuple[nn.Module | None, ...]) -> Iterator[Tensor]:
    """Their weights, but for those that a hook of Accelerate loads when they are needed."""
    for leaf in leaves:
        if leaf is not None and "_hf_hook" not in vars(leaf):
            yield from leaf.parameters()
