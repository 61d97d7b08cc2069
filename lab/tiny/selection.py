"""Ways to select visual tokens, for evaluation only; each sample has one question."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb, repeat_kv

from hf_token_compress.data.scenes import Question

from .architecture import StockModel
from .forward import embed
from .packing import PackedBatch
from .processor import MERGE_SIZE, PATCH_SIZE


@torch.no_grad()
def instruction_attention(
    model: StockModel, tokens: torch.Tensor, batch: PackedBatch
) -> torch.Tensor:
    """Attention from the words of the question to each visual token in the first layer.

    Args:
        model: The model.
        tokens: [B, N, D] visual tokens.
        batch: B packed questions, one per sample.

    Returns:
        float32 [B, V], mean over heads and over the words of the question.
    """
    text = model.model.language_model
    layer = text.layers[0]
    attention = layer.self_attn
    hidden = layer.input_layernorm(embed(model, tokens, batch))
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    query = attention.q_proj(hidden).view(shape).transpose(1, 2)
    key = attention.k_proj(hidden).view(shape).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *text.rotary_emb(hidden, batch.position_ids))
    key = repeat_kv(key, attention.num_key_value_groups)
    scores = (query @ key.transpose(2, 3) * attention.scaling).float()
    weights = scores.masked_fill(~batch.mask, float("-inf")).softmax(-1)
    asking = batch.question_mask[:, None, :, None]  # [B, 1, S, 1]
    mean = (weights * asking).sum((1, 2)) / (asking.sum((1, 2)) * query.shape[1])  # [B, S]
    return mean[:, batch.visual_slice]


def top(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """The tokens with the highest scores, int64 [B, keep], ascending."""
    return scores.topk(keep, dim=1).indices.sort(dim=1).values


def uniform(batch: int, count: int, keep: int) -> torch.Tensor:
    """Every n-th token of the grid, int64 [batch, keep]."""
    index = torch.linspace(0, count - 1, keep).round().long()
    return index.expand(batch, keep)


def relevance(
    questions: Sequence[Question], grid: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Random scores below 1, and above 1 for the tokens that the answer depends on.

    Args:
        questions: B questions.
        grid: Rows and columns of visual tokens.
        generator: Generator of the random scores.

    Returns:
        float32 [B, rows * columns].
    """
    side = PATCH_SIZE * MERGE_SIZE
    scores = torch.rand(len(questions), *grid, generator=generator)
    for index, question in enumerate(questions):
        for left, top_, right, bottom in question.relevant_boxes:
            scores[index, top_ // side : bottom // side, left // side : right // side] += 1.0
    return scores.flatten(1)
