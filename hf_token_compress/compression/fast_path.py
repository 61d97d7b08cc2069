"""Project only the instruction tokens to queries, where layer 0 is known to allow it.

The probe projects every token to queries and values. In a Llama-like layer 0, the norm, the
projections and RoPE can be called by hand instead, for the tokens that matter. Whether a model has
such a layer is not assumed: its queries and keys are compared with those of the probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..models.family import ModelFamily, is_token
from ..prompt import Modality
from ..scoring_layer import ScoringLayer
from .probe import DecoderEntry, Probe, decoder_layers

_POSITIONS_PER_CHUNK = 512
"""Positions to normalise and project to keys at once. The normalised hidden states of all of them
would take more memory than their keys."""

_CHECKED_POSITIONS = 12


@dataclass(frozen=True)
class FastPath:
    """A layer 0 whose queries and keys were found to be those of `_LlamaLike`.

    Attributes:
        leaves: The modules of the model that were checked.
        scaling: Factor on the attention logits.
        sliding_window: Number of keys that a query sees, its own included; None for all.
    """

    leaves: tuple[nn.Module | None, ...]
    scaling: float
    sliding_window: int | None

    @classmethod
    def find(cls, model: Any, family: ModelFamily) -> FastPath | None:
        """Check layer 0 of a model on a short prompt of text; None if it needs the probe."""
        leaves = _leaves(model.get_decoder())
        if leaves is None or any(weight.is_meta for weight in _weights(leaves)):
            return None
        try:
            with torch.no_grad():
                return cls._checked(model, family, leaves)
        except Exception:
            # The probe serves every decoder, and says what is wrong with one.
            return None

    @classmethod
    def _checked(
        cls, model: Any, family: ModelFamily, leaves: tuple[nn.Module | None, ...]
    ) -> FastPath | None:
        probe = Probe(model, _text(model, family))
        call = probe.attention()
        entry = probe.entry()
        window = call.options.get("sliding_window")
        special = [call.options.get(name) for name in ("softcap", "s_aux", "position_bias")]
        if call.layer != 0 or any(value is not None for value in special):
            return None
        if not entry.makes_masks or not call.mask.is_causal(window):
            return None
        layer = _LlamaLike.of(entry.decoder)
        cos, sin = layer.rotary_of(entry)
        hidden = layer.input_norm(entry.inputs_embeds)  # [B, S, D]
        for found, expected in (
            (layer.queries(hidden, cos, sin), call.query),
            (layer.keys(hidden, cos, sin), call.key),
        ):
            if not _is_close(found.transpose(1, 2), expected):
                return None
        return cls(leaves, call.scaling, window)

    def fits(self, model: Any) -> bool:
        """Whether the model still has the layer that was checked."""
        leaves = _leaves(model.get_decoder())
        if leaves is None:
            return False
        return all(own is checked for own, checked in zip(leaves, self.leaves, strict=True))

    def scoring_layer(
        self, probe: Probe, instruction: Tensor, attention_mask: Tensor
    ) -> ScoringLayer:
        """The scoring layer for instruction tokens, bool [B, S], and a mask, bool [B, S]."""
        entry = probe.entry()
        layer = _LlamaLike.of(entry.decoder)
        cos, sin = layer.rotary_of(entry)  # [B, S, rotary] each
        embeds = entry.inputs_embeds.to(cos.device)  # [B, S, D]
        instruction = instruction.to(embeds.device)
        # Keys of all tokens, in chunks of positions.
        parts = (part.split(_POSITIONS_PER_CHUNK, dim=1) for part in (embeds, cos, sin))
        key = torch.cat(
            [
                layer.keys(layer.input_norm(chunk), *turn)
                for chunk, *turn in zip(*parts, strict=True)
            ],
            dim=1,
        )  # [B, S, key_heads, head_dim]
        # Queries of the instruction tokens.
        query = layer.queries(
            layer.input_norm(embeds[instruction]), cos[instruction], sin[instruction]
        )  # [Q, heads, head_dim]
        sample, position = instruction.to(query.device).nonzero(as_tuple=True)  # [Q] each
        return ScoringLayer(
            query=query,
            key=key,
            sample=sample,
            position=position,
            key_mask=attention_mask.to(key.device),
            scaling=self.scaling,
            sliding_window=self.sliding_window,
        )


@dataclass(frozen=True)
class _LlamaLike:
    """Norm, projections, norms of single heads, and RoPE over halves of a head."""

    input_norm: Any
    query_projection: Any
    key_projection: Any
    query_norm: Any
    key_norm: Any
    rotary: Any
    head_dim: int

    @classmethod
    def of(cls, decoder: Any) -> _LlamaLike:
        norm, query, key, query_norm, key_norm, rotary = _leaves(decoder) or [None] * 6
        layer: Any = decoder_layers(decoder)[0]
        head_dim = layer.self_attn.head_dim
        return cls(norm, query, key, query_norm, key_norm, rotary, head_dim)

    def rotary_of(self, entry: DecoderEntry) -> tuple[Tensor, Tensor]:
        """Cosine and sine of an entry, [B, S, rotary] each."""
        embeds, position_ids = entry.inputs_embeds, entry.position_ids
        if position_ids is None:
            position_ids = torch.arange(embeds.shape[1], device=embeds.device)[None]
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


def _leaves(decoder: Any) -> tuple[nn.Module | None, ...] | None:
    """The modules that `_LlamaLike` calls; None if one is missing or is more than a leaf.

    Modules with parts, such as those of LoRA, may treat a token by its place in the sequence, and
    hooks may do anything.
    """
    layers = decoder_layers(decoder)
    if not layers:
        return None
    layer, attention = layers[0], getattr(layers[0], "self_attn", None)
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


def _weights(leaves: tuple[nn.Module | None, ...]) -> Iterator[Tensor]:
    """Their weights, but for those that a hook of Accelerate loads when they are needed."""
    for leaf in leaves:
        if leaf is not None and "_hf_hook" not in vars(leaf):
            yield from leaf.parameters()


def _text(model: Any, family: ModelFamily) -> dict[str, Tensor]:
    """Two samples of text, one padded on the left, at positions that differ on every axis."""
    device = model.device
    # Any ids but placeholders.
    vocabulary = torch.arange(model.config.get_text_config().vocab_size, device=device)
    for modality in get_args(Modality):
        vocabulary = vocabulary[~is_token(vocabulary, family.placeholder_ids(model, modality))]
    count = 2 * _CHECKED_POSITIONS
    ids = vocabulary[torch.arange(count, device=device) * 7 % len(vocabulary)].view(2, -1)
    mask = torch.ones_like(ids)  # [B, S]
    mask[1, :3] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": torch.zeros_like(ids)}
    position_ids = family.position_ids(model, inputs, mask.bool())  # [A, B, S] or [B, S]
    if position_ids.ndim == 3:
        speed = torch.tensor([1, 2, 3, 5], device=device)[: len(position_ids)]
        inputs["position_ids"] = position_ids * speed[:, None, None]
    else:
        inputs["position_ids"] = position_ids * 2
    return inputs


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding: products of other sizes are added up in another order."""
    if found.shape != expected.shape:
        return False
    tolerance = max(1e-5, 4 * torch.finfo(expected.dtype).eps)
    difference = (found.float() - expected.float()).abs().max()
    return bool(difference <= tolerance * expected.float().abs().max())
