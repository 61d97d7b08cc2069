"""What the instruction looks at in one decoder layer: the input of every mapper."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mapper.inputs import MapperInput
from ..prompt import Modality, MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .attention import project_instruction

_SMALLEST_SHARE = 1e-9
_ROWS_AT_ONCE = 64


def mapper_inputs(
    prompt: MultimodalPrompt, scoring_layer: ScoringLayer, modality: Modality
) -> list[MapperInput | None]:
    """Attention of the instruction rows to the images, or videos, of each prompt, per head.

    As in `instruction_attention`, only instruction rows become queries, and each row attends to the
    keys up to its own column, padding excluded. Two statistics over the rows are kept: their mean,
    which is what the paper uses, and the highest share that any one row gives a token of what it
    gives to visual tokens at all. The second keeps the word that asks from drowning among the
    others.

    Returns:
        One `MapperInput` per prompt, float32 on the device of the prompt; None for prompts without
        visual tokens of that modality.

    Raises:
        ValueError: A prompt has visual tokens, but no instruction row.
    """
    query, key, query_sample, query_column = project_instruction(prompt, scoring_layer)
    inputs: list[MapperInput | None] = []
    for sample, row_visuals in enumerate(prompt.visuals):
        visuals = [visual for visual in row_visuals if visual.modality == modality]
        if not visuals:
            inputs.append(None)
            continue
        own = query_sample == sample
        present = prompt.attention_mask[sample].nonzero().flatten()  # [K]
        columns = torch.cat([visual.positions for visual in visuals]).to(present.device)  # [N]
        attention = attention_statistics(
            query[own],
            key[sample, present],
            query_column[own],
            present,
            torch.isin(present, columns),
            scaling=scoring_layer.scaling,
            sliding_window=scoring_layer.sliding_window,
        )
        grids: list[Tensor] = []
        start = 0
        for visual in visuals:
            grids.extend(start + grid.index for grid in visual.grids)
            start += len(visual.positions)
        inputs.append(MapperInput(attention, tuple(grids)))
    return inputs


def attention_statistics(
    query: Tensor,
    key: Tensor,
    query_position: Tensor,
    key_position: Tensor,
    visual: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
) -> Tensor:
    """Mean and peak, over the rows of one prompt, of their causal attention to visual tokens.

    Args:
        query: float [R, heads, head_dim], after RoPE.
        key: float [K, key_heads, head_dim], after RoPE; heads is a multiple of key_heads.
        query_position: int64 [R], column of each row.
        key_position: int64 [K], column of each key.
        visual: bool [K], True for N visual tokens.
        scaling: Factor on the logits.
        sliding_window: Keys that a row sees at most, itself included; None for all.

    Returns:
        float32 [2, heads, N], natural logarithms, shares below 1e-9 counted as that.
    """
    rows, heads, _ = query.shape
    key_heads = key.shape[1]
    mean = torch.zeros(heads, int(visual.sum()), device=query.device)  # [heads, N]
    peak = torch.zeros_like(mean)
    keys = key.permute(1, 2, 0).unsqueeze(1)  # [key_heads, 1, head_dim, K]
    for chunk in torch.arange(rows, device=query.device).split(_ROWS_AT_ONCE):
        # One key head serves a group of query heads.
        grouped = query[chunk].unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3)
        logits = (grouped @ keys).float().flatten(0, 1) * scaling  # [heads, rows, K]
        offset = query_position[chunk][:, None] - key_position  # [rows, K]
        visible = offset >= 0
        if sliding_window is not None:
            visible &= offset < sliding_window
        attention = logits.masked_fill(~visible, float("-inf")).softmax(dim=-1)
        # A row that sees no key at all would be NaN.
        attention = attention.masked_fill(~visible, 0.0)[..., visual]  # [heads, rows, N]
        mean += attention.sum(dim=1) / rows
        share = attention / attention.sum(dim=-1, keepdim=True).clamp(min=_SMALLEST_SHARE)
        peak = torch.maximum(peak, share.amax(dim=1))
    return torch.stack([mean, peak]).clamp(min=_SMALLEST_SHARE).log()
