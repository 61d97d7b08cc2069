"""Batched calls of the stock model's modules: the results of `forward`, much faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hf_token_compress.data.scenes import Scene

from .architecture import StockModel
from .packing import IGNORED, PackedBatch
from .processor import MERGE_SIZE, PATCH_SIZE

_MEAN = np.asarray(OPENAI_CLIP_MEAN, dtype=np.float32) * 255
_STD = np.asarray(OPENAI_CLIP_STD, dtype=np.float32) * 255


def normalised_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of one shape as [B, H, W, 3] float32, normalised as by the image processors."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy((pixels - _MEAN) / _STD)


def patches_of(images: list[Image.Image]) -> torch.Tensor:
    """Cut images of one shape into normalised patches, in the order of the image processor.

    Returns:
        [B, N, 3 * 12 * 12] float32; four patches of one visual token follow one another.
    """
    pixels = normalised_pixels(images)
    batch, height, width, _ = pixels.shape
    step = PATCH_SIZE * MERGE_SIZE
    shape = (height // step, MERGE_SIZE, PATCH_SIZE, width // step, MERGE_SIZE, PATCH_SIZE)
    cut = pixels.view(batch, *shape, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    return cut.reshape(batch, -1, 3 * PATCH_SIZE * PATCH_SIZE)


def encode_images(visual: Any, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Run the vision tower on images of one shape.

    Args:
        visual: Vision tower of the model.
        patches: [B, N, 432] from `patches_of`.
        grid: Rows and columns of visual tokens.

    Returns:
        [B, N / 4, D] visual tokens, row by row.
    """
    batch, count, _ = patches.shape
    kernel = visual.patch_embed.proj.weight.sum(2).flatten(1)  # both frames of a still are equal
    hidden = nn.functional.linear(patches.to(kernel.dtype), kernel)
    cos, sin = visual.rotary_pos_emb(hidden, _patch_positions(grid))
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden)).view(batch, count, 3, attention.num_heads, -1)
        query, key, value = qkv.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(batch, count, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    return visual.merger(hidden).view(batch, count // MERGE_SIZE**2, -1)


def encode_scenes(visual: Any, scenes: Sequence[Scene]) -> torch.Tensor:
    """Visual tokens [B, N, D] of scenes of one shape."""
    grid = (2 * scenes[0].rows, 2 * scenes[0].columns)
    return encode_images(visual, patches_of([scene.image for scene in scenes]), grid)


def _patch_positions(grid: tuple[int, int]) -> torch.Tensor:
    """[N, 2] row and column of every patch, in the image processor's order."""
    rows, columns = grid
    row = torch.arange(rows * MERGE_SIZE).view(rows, 1, MERGE_SIZE, 1)
    column = torch.arange(columns * MERGE_SIZE).view(1, columns, 1, MERGE_SIZE)
    shape = (rows, columns, MERGE_SIZE, MERGE_SIZE)
    return torch.stack([row.expand(shape).flatten(), column.expand(shape).flatten()], dim=1)


def embed(model: StockModel, tokens: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Embeddings for the first layer of the language model.

    Args:
        model: The model.
        tokens: [B, N, D] visual tokens, before any is dropped.
        batch: The packed questions.

    Returns:
        [B, S, D]: prefix, kept visual tokens, text.
    """
    words = model.get_input_embeddings()
    index = batch.kept[..., None].expand(-1, -1, tokens.shape[-1])
    kept = tokens.gather(1, index).to(words.weight.dtype)
    prefix = words(batch.prefix_ids).expand(len(tokens), -1, -1)
    return torch.cat([prefix, kept, words(batch.text_ids)], dim=1)


def text_states(model: StockModel, tokens: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Final hidden states [B, T, D] of the text after the image; arguments as for `embed`."""
    hidden = model.model.language_model(
        inputs_embeds=embed(model, tokens, batch),
        attention_mask=batch.mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden[:, batch.visual_slice.stop :]


def answer_logits(
    model: StockModel, tokens: torch.Tensor, batch: PackedBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at the positions that predict answers; arguments as for `embed`.

    Returns:
        float32 logits [answer tokens, vocabulary], and the right next tokens [answer tokens].
    """
    asked = batch.labels != IGNORED
    logits = model.lm_head(text_states(model, tokens, batch)[asked])
    return logits.float(), batch.labels[asked]


def answer_loss(
    model: StockModel,
    tokens: torch.Tensor,
    batch: PackedBatch,
    early_weight: float = 0.0,
) -> torch.Tensor:
    """Mean loss on answer tokens.

    Args:
        model: The model.
        tokens: [B, N, D] visual tokens, before any is dropped.
        batch: The packed questions.
        early_weight: Weight of the loss for predicting the answer's first token at the end of the
            question, which is easier to learn first.
    """
    states = text_states(model, tokens, batch)
    loss = states.new_zeros((), dtype=torch.float32)
    for labels, weight in ((batch.labels, 1.0), (batch.early_labels, early_weight)):
        if weight:
            asked = labels != IGNORED
            logits = model.lm_head(states[asked]).float()
            loss = loss + weight * nn.functional.cross_entropy(logits, labels[asked])
    return loss
