"""How visual tokens relate to the instruction and to each other, as embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_SMALLEST_NORM = 1e-9
_TOKENS_PER_CHUNK = 2048


def embedding_statistics(visual: Tensor, instruction: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of visual embeddings to those of the instruction, and to their own mean.

    Args:
        visual: float [N, D], visual tokens as the language model gets them.
        instruction: float [T, D], embeddings of the instruction tokens.

    Returns:
        `text` and `embedding` of a `MapperInput`, float32 [2, N] each.
    """
    words = normalize(instruction.float(), dim=-1)  # [T, D]
    centre = normalize(visual.mean(dim=0, dtype=torch.float32), dim=0)  # [D]
    text, embedding = [], []
    # A float32 copy of all visual tokens may not fit.
    for chunk in visual.split(_TOKENS_PER_CHUNK):
        norm = chunk.float().norm(dim=-1).clamp(min=_SMALLEST_NORM)  # [n]
        unit = chunk.float() / norm[:, None]  # [n, D]
        cosines = unit @ words.T  # [n, T]
        text.append(torch.stack([cosines.mean(dim=1), cosines.amax(dim=1)]))  # [2, n]
        embedding.append(torch.stack([norm.log(), unit @ centre]))  # [2, n]
    return torch.cat(text, dim=1), torch.cat(embedding, dim=1)  # [2, N] each
