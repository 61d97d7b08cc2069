"""The input of a mapper: how the instruction relates to the visual tokens."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..kernels.instruction_attention.torch_reference import causal_mask, masked_softmax
from ..mapper.inputs import INPUTS, MapperInput
from ..prompt import Modality, MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .embedding_statistics import embedding_statistics

_SMALLEST_SHARE = 1e-9
_QUERIES_PER_CHUNK = 64


def mapper_inputs(
    prompt: MultimodalPrompt,
    scoring_layer: ScoringLayer,
    modality: Modality,
    inputs: Collection[str] = INPUTS,
) -> list[MapperInput | None]:
    """What mappers see of the images, or the videos, of each prompt.

    The attention is that of `instruction_attention`, with two statistics over the instruction
    tokens: their mean, as in the paper, and the highest share that one of them gives a visual token
    of all its attention to visual tokens. The second one preserves the one word that asks for
    something among many others.

    Args:
        prompt: The prompts.
        scoring_layer: Their queries and keys.
        modality: "image" or "video".
        inputs: Groups of channels besides attention, which always comes.

    Returns:
        One `MapperInput` per prompt, float32 on the device of the layer; None for prompts without
        visual tokens of that modality.
    """
    found: list[MapperInput | None] = []
    device = scoring_layer.key.device
    for sample, all_visuals in enumerate(prompt.visuals):
        visuals = [visual for visual in all_visuals if visual.modality == modality]
        if not visuals:
            found.append(None)
            continue
        # Attention of the sample's queries to its visual tokens.
        own = scoring_layer.sample == sample  # [Q]
        present = scoring_layer.key_mask[sample].nonzero().flatten()  # [K]
        positions = torch.cat([visual.positions for visual in visuals]).to(device)  # [N]
        mask = scoring_layer.mask
        attention = attention_statistics(
            scoring_layer.query[own],
            scoring_layer.key[sample, present],
            scoring_layer.position[own],
            present,
            torch.isin(present, positions),
            scaling=scoring_layer.scaling,
            sliding_window=scoring_layer.sliding_window,
            mask=None if mask is None else mask[own][:, present],
            softcap=scoring_layer.softcap,
            sinks=scoring_layer.sinks,
        )  # [2, heads, N]
        # Grids over all of these visual tokens.
        grids: list[Tensor] = []
        start = 0
        for visual in visuals:
            grids.extend(start + grid.index for grid in visual.grids)
            start += len(visual.positions)
        text = embedding = None
        if not {"text", "embedding"}.isdisjoint(inputs):
            embeds = prompt.inputs_embeds[sample].to(device)  # [S, D]
            query_mask = prompt.query_mask[sample].to(device)  # [S]
            text, embedding = embedding_statistics(embeds[positions], embeds[query_mask])
        found.append(MapperInput(attention, tuple(grids), text, embedding))
    return found


def attention_statistics(
    query: Tensor,
    key: Tensor,
    query_position: Tensor,
    key_position: Tensor,
    visual: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Mean and maximum over the queries of one prompt of their attention to visual tokens.

    Args:
        query: float [Q, heads, head_dim], after RoPE.
        key: float [K, key_heads, head_dim], after RoPE; heads is a multiple of key_heads.
        query_position: int64 [Q].
        key_position: int64 [K].
        visual: bool [K], True for N visual tokens.
        scaling: Factor on the logits.
        sliding_window: Keys that a query attends to at most, itself included; None for all.
        mask: bool [Q, K], the keys that each query sees, in place of causal order and window.
        softcap: As in `ScoringLayer`.
        sinks: As in `ScoringLayer`.

    Returns:
        float32 [2, heads, N], natural logarithms of the mean attention and of the highest share
        of the attention to visual tokens; values below 1e-9 count as 1e-9.
    """
    queries, heads, _ = query.shape
    key_heads = key.shape[1]
    shape = heads, int(visual.sum())
    mean = torch.zeros(shape, dtype=torch.float32, device=query.device)  # [heads, N]
    peak = torch.zeros_like(mean)  # [heads, N]
    keys = key.permute(1, 2, 0).unsqueeze(1)  # [key_heads, 1, head_dim, K]
    for chunk in torch.arange(queries, device=query.device).split(_QUERIES_PER_CHUNK):
        # Logits of the chunk's q queries; a key head serves a group of query heads.
        grouped = query[chunk].unflatten(1, (key_heads, -1))  # [q, key_heads, group, head_dim]
        grouped = grouped.permute(1, 2, 0, 3)  # [key_heads, group, q, head_dim]
        logits = (grouped @ keys).float().flatten(0, 1) * scaling  # [heads, q, K]
        # Attention to the keys that each query sees.
        if mask is None:
            visible = causal_mask(query_position[chunk], key_position, sliding_window)  # [q, K]
        else:
            visible = mask[chunk]  # [q, K]
        attention = masked_softmax(logits, visible, softcap, sinks)[..., visual]  # [heads, q, N]
        # Both statistics.
        mean += attention.sum(dim=1) / queries
        share = attention / attention.sum(dim=-1, keepdim=True).clamp(min=_SMALLEST_SHARE)
        peak = torch.maximum(peak, share.amax(dim=1))
    return torch.stack([mean, peak]).clamp(min=_SMALLEST_SHARE).log()  # [2, heads, N]
