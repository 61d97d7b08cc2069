"""A Llama-like decoder layer: norm, projections to heads, norms of heads, RoPE over halves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from .probe import decoder_layers
from .twin import make_twin


@dataclass(frozen=True)
class LlamaLikeLayer:
    """Norm, projections, norms of single heads, and RoPE over halves of a head.

    Two of them are equal if they are of the same modules, and nothing around these has changed.

    Attributes:
        input_norm, query_projection, key_projection, query_norm, key_norm, rotary: Modules that
            are called; the norms of heads are None if there are none.
        head_dim: Size of one head.
        around: Types and settings of what calls these modules in the model.
    """

    input_norm: nn.Module
    query_projection: nn.Module
    key_projection: nn.Module
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    rotary: nn.Module
    head_dim: int
    around: tuple[Any, ...]

    @classmethod
    def of(cls, decoder: Any) -> LlamaLikeLayer | None:
        """Layer 0 of a decoder; None if a module is missing or is more than a leaf.

        Modules with parts, such as those of LoRA, may treat a token by its place in the sequence,
        and hooks may do anything, also those of the modules around.
        """
        layers = decoder_layers(decoder)
        attention = getattr(layers[0], "self_attn", None) if layers else None
        if attention is None or not hasattr(attention, "head_dim"):
            return None
        layer: Any = layers[0]
        around = (decoder, layer, attention)
        if any(module._forward_pre_hooks for module in around):
            return None
        norm = getattr(layer, "input_layernorm", None)
        query, key = (getattr(attention, name, None) for name in ("q_proj", "k_proj"))
        query_norm, key_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        rotary = getattr(decoder, "rotary_emb", None)
        if norm is None or rotary is None:
            return None
        if type(query) is not nn.Linear or type(key) is not nn.Linear:
            return None
        # Quantised and sharded weights are of other types.
        if type(query.weight) is not nn.Parameter or type(key.weight) is not nn.Parameter:
            return None
        for leaf in (norm, query, key, query_norm, key_norm, rotary):
            if leaf is None:
                continue
            if leaf._modules or leaf._forward_hooks or leaf._forward_pre_hooks:
                return None
        settings = (
            getattr(attention, "scaling", None),
            getattr(attention, "sliding_window", None),
            getattr(decoder.config, "sliding_window", None),
        )
        types = tuple(map(type, around))
        return cls(
            norm, query, key, query_norm, key_norm, rotary, attention.head_dim, (*types, *settings)
        )

    @contextmanager
    def running_twin(self) -> Iterator[LlamaLikeLayer]:
        """Twins of its modules, to be run inside the `with` block."""
        names = [own.name for own in fields(self) if isinstance(getattr(self, own.name), nn.Module)]
        twin = make_twin(nn.ModuleDict({name: getattr(self, name) for name in names}))
        with twin.running():
            yield replace(self, **{name: twin.module[name] for name in names})

    def is_loaded(self) -> bool:
        """Whether the weights are there, or a hook of Accelerate loads them when needed."""
        modules = (self.input_norm, self.query_projection, self.key_projection, self.rotary)
        return not any(
            weight.is_meta
            for module in modules
            if "_hf_hook" not in vars(module)
            for weight in module.parameters()
        )

    def cos_and_sin(self, embeds: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [B, S, rotary] each, for position ids [A, B, S] or [B, S].

        Of `embeds` only the dtype and the device count.
        """
        # Of four axes, the first counts text order; RoPE takes time, height and width.
        cos, sin = self.rotary(
            embeds, position_ids[-3:] if position_ids.ndim == 3 else position_ids
        )
        shape = position_ids.shape[-2:]
        return cos.expand(*shape, -1), sin.expand(*shape, -1)

    def queries(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries after RoPE: hidden [..., D], cos and sin [..., R] → [..., heads, head_dim].

        `cos` and `sin` may have more dimensions in front: one turn of the same queries each.
        """
        return self._heads(self.query_projection, self.query_norm, hidden, cos, sin)

    def keys(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Keys after RoPE, as `queries`: [..., key_heads, head_dim]."""
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
    `cos` and `sin` may have more dimensions in front.
    """
    rotary_dim = cos.shape[-1]
    rotated, rest = heads[..., :rotary_dim], heads[..., rotary_dim:]
    first, second = rotated.chunk(2, dim=-1)
    quarter_turn = torch.cat([-second, first], dim=-1)
    turned = rotated * cos + quarter_turn * sin
    if rest.shape[-1] == 0:
        return turned
    return torch.cat([turned, rest.expand(*turned.shape[:-1], -1)], dim=-1)
