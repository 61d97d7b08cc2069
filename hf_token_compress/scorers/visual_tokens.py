"""The visual tokens of a batch, prompt by prompt, and how alike they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..prompt import MultimodalPrompt


def score_each_prompt(prompt: MultimodalPrompt, score: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Scores of a batch from those of each prompt.

    Args:
        prompt: B prompts of S tokens.
        score: From the number of a prompt and the positions of its visual tokens, int64 [N], to
            their scores, [N]; not called for prompts without.

    Returns:
        float32 [B, S], zero elsewhere.
    """
    mask = prompt.visual_mask
    scores = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)  # [B, S]
    for sample, own in enumerate(mask):
        positions = own.nonzero().flatten()  # [N]
        if len(positions):
            scores[sample, positions] = score(sample, positions).to(scores)
    return scores


def unit_embeddings(prompt: MultimodalPrompt, sample: int, positions: Tensor) -> Tensor:
    """Embeddings of a prompt's tokens at length 1, float32 [N, D]; products are cosines."""
    embeds = prompt.inputs_embeds
    return normalize(embeds[sample, positions.to(embeds.device)].float(), dim=-1)


def instruction_positions(prompt: MultimodalPrompt, sample: int) -> Tensor:
    """Positions of a prompt's instruction tokens, int64 [R]."""
    return prompt.query_mask[sample].nonzero().flatten()


def standardized(values: Tensor) -> Tensor:
    """Values, [N], with mean 0 and variance 1; equal ones become 0."""
    centred = values - values.mean()
    return centred / centred.square().mean().sqrt().clamp(min=torch.finfo(values.dtype).tiny)
