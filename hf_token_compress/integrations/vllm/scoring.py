"""Layer 0 of vLLM's decoder, by vLLM's own modules, as scorers read it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    get_tp_group,
    tensor_model_parallel_all_gather,
)

from ...mapper import ModelIdentity
from ...mapper.identity import fingerprint_input, layer_fingerprint
from ...scoring_layer import ScoringLayer


class FirstLayer:
    """Norm, projections and RoPE of layer 0, with the heads of all tensor-parallel ranks.

    Args:
        decoder: vLLM's decoder, with layers like those of Qwen2.
    """

    def __init__(self, decoder: Any) -> None:
        self._norm = decoder.layers[0].input_layernorm
        self._attention = decoder.layers[0].self_attn

    def scoring_layer(
        self, embeds: Tensor, position_ids: Tensor, query_mask: Tensor, *, rotary: bool
    ) -> ScoringLayer:
        """The scoring layer of one prompt.

        Args:
            embeds: float [S, D], what enters the decoder.
            position_ids: int64 [A, S] or [S].
            query_mask: bool [S], tokens whose queries it has.
            rotary: Whether RoPE turns queries and keys.
        """
        attention = self._attention
        projected, _ = attention.qkv_proj(self._norm(embeds))
        sizes = [attention.q_size, attention.kv_size, attention.kv_size]
        query, key, _ = projected.split(sizes, dim=-1)
        # Copies, because RoPE may write in place.
        query, key = query.contiguous(), key.contiguous()
        if attention.qk_norm:
            query = self._normalized(attention.q_norm, query)
            key = self._normalized(attention.k_norm, key)
        if rotary:
            query, key = attention.rotary_emb(position_ids, query, key)
        position = query_mask.nonzero().flatten()  # [Q]
        return ScoringLayer(
            query=self._heads_of_all_ranks(query[position], attention.total_num_heads),
            key=self._heads_of_all_ranks(key, attention.total_num_kv_heads)[None],
            sample=torch.zeros_like(position),
            position=position,
            key_mask=torch.ones_like(query_mask)[None],
            scaling=attention.scaling,
        )

    def _normalized(self, norm: Any, heads: Tensor) -> Tensor:
        return norm(heads.unflatten(-1, (-1, self._attention.head_dim))).flatten(-2)

    def _heads_of_all_ranks(self, heads: Tensor, total: int) -> Tensor:
        """From [R, heads * head_dim] of this rank to [R, total, head_dim]."""
        gathered = tensor_model_parallel_all_gather(heads.contiguous())
        gathered = gathered.unflatten(-1, (-1, self._attention.head_dim))  # [R, heads, head_dim]
        # With more ranks than key heads, several ranks have the same one.
        return gathered[:, :: gathered.shape[1] // total]

    @torch.no_grad()
    def fingerprint(self) -> tuple[float, ...]:
        """The fingerprint of the layer; empty if its weights are quantised."""
        weight = getattr(self._attention.qkv_proj, "weight", None)
        bias = getattr(self._attention.qkv_proj, "bias", None)
        width = len(self._norm.weight)
        if not isinstance(weight, Tensor) or weight.shape[-1] != width:
            return ()
        # FP8 counts as floating point.
        if not weight.is_floating_point() or weight.dtype.itemsize < 2:
            return ()
        rows = slice(0, self._attention.q_size)
        hidden = self._norm.forward_native(fingerprint_input(width).to(weight)[None])  # [1, D]
        # Weights are being loaded, so the projection cannot be called yet. RoPE leaves position 0
        # as it is.
        query = nn.functional.linear(
            hidden, weight[rows], None if bias is None else bias[rows]
        )  # [1, heads * head_dim]
        if self._attention.qk_norm:
            query = self._normalized(self._attention.q_norm, query)
        return layer_fingerprint(tensor_model_parallel_all_gather(query).flatten())


def identify(model_config: Any, first_layer: FirstLayer) -> ModelIdentity:
    """Name, sizes and fingerprint of the model that vLLM loaded."""
    hf_config = model_config.hf_config
    text = hf_config.get_text_config()
    return ModelIdentity(
        name=str(model_config.model),
        revision=getattr(hf_config, "_commit_hash", None),
        model_type=hf_config.model_type,
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        fingerprint=first_layer.fingerprint(),
    )


def of_first_rank(tensor: Tensor) -> Tensor:
    """The tensor as the first tensor-parallel rank has it."""
    if get_tensor_model_parallel_world_size() == 1:
        return tensor
    return get_tp_group().broadcast(tensor.contiguous())
