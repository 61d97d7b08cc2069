"""How visual tokens relate to the instruction and to each other, as embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..device_copy import few_launches

_SMALLEST_NORM = 1e-9
_TOKENS_PER_CHUNK = 2048
"""Tokens at once on a CPU, where a float32 copy of all visual tokens may not fit."""

_ELEMENTS_PER_CHUNK = 2**27
"""Elements of embeddings at once on an accelerator, where launches cost more than memory."""


def embedding_statistics(
    visual: Tensor,
    instruction: Tensor,
    missing: Tensor | None = None,
    unasked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Similarity of visual embeddings to those of the instruction, and to their own mean.

    Args:
        visual: float [P, N, D], visual tokens of P prompts as the language model gets them.
        instruction: float [P, R, D], embeddings of their instruction tokens.
        missing: bool [P, N], True on padding; None if there is none.
        unasked: bool [P, R], True on padding of the instruction; None if there is none.

    Returns:
        `text` and `embedding` of a `MapperBatch`, float32 [P, 2, N] each.
    """
    words = normalize(instruction.float(), dim=-1)  # [P, R, D]
    centre = _centre(visual, missing).unsqueeze(-1)  # [P, D, 1]
    asked = None if unasked is None else (~unasked).sum(dim=1, keepdim=True)  # [P, 1]
    text, embedding = [], []
    for chunk in visual.split(_chunk_size(visual), dim=1):
        values = chunk.float()  # [P, n, D]
        norm = values.norm(dim=-1).clamp(min=_SMALLEST_NORM)  # [P, n]
        unit = values / norm.unsqueeze(-1)  # [P, n, D]
        del values
        cosines = unit @ words.mT  # [P, n, R]
        if unasked is None or asked is None:
            mean, largest = cosines.mean(dim=-1), cosines.amax(dim=-1)  # [P, n] each
        else:
            out = unasked.unsqueeze(1)  # [P, 1, R]
            mean = cosines.masked_fill(out, 0.0).sum(dim=-1) / asked
            largest = cosines.masked_fill(out, -torch.inf).amax(dim=-1)
        text.append(torch.stack([mean, largest], dim=1))  # [P, 2, n]
        own = (unit @ centre).squeeze(-1)  # [P, n]
        embedding.append(torch.stack([norm.log(), own], dim=1))  # [P, 2, n]
    return _joined(text), _joined(embedding)


def _centre(visual: Tensor, missing: Tensor | None) -> Tensor:
    """Direction of the mean of the embeddings, float32 [P, D]."""
    if missing is None:
        return normalize(visual.mean(dim=1, dtype=torch.float32), dim=-1)
    total = visual.masked_fill(missing.unsqueeze(-1), 0.0).sum(dim=1, dtype=torch.float32)
    return normalize(total / (~missing).sum(dim=1, keepdim=True), dim=-1)


def _chunk_size(visual: Tensor) -> int:
    if not few_launches(visual.device):
        return _TOKENS_PER_CHUNK
    prompts, _, width = visual.shape
    return max(_ELEMENTS_PER_CHUNK // (prompts * width), _TOKENS_PER_CHUNK)


def _joined(chunks: list[Tensor]) -> Tensor:
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=-1)
