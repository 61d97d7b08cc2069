"""Random scores: the baseline that every scorer has to beat."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..device_copy import to_device
from ..prompt import MultimodalPrompt
from .base import Scorer


class RandomScorer(Scorer):
    """Uniform random scores that depend on the seed and on the token ids of the prompt only.

    A prompt keeps the same tokens alone and in a batch, and different prompts keep different ones.

    Args:
        seed: Seed of the draw, from 0 to 2 ** 64 - 1.

    Raises:
        TypeError: `seed` is not a whole number.
        ValueError: It is out of range.
    """

    def __init__(self, seed: int = 0) -> None:
        check_number("seed of the scorer random", seed, f"[0, {2**64})", whole=True)
        self.seed = seed

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        scores = torch.zeros(prompt.visual_mask.shape, dtype=torch.float32)  # [B, S]
        for sample, visual in enumerate(prompt.on_host.visual):
            ids = prompt.input_ids[sample][prompt.attention_mask[sample]].cpu()  # [tokens]
            generator = torch.Generator().manual_seed(self.seed ^ _digest(ids))
            drawn = torch.rand(int(visual.sum()), generator=generator, dtype=torch.float32)
            scores[sample, visual] = drawn
        return to_device([scores], prompt.visual_mask.device)[0]


def _digest(ids: Tensor) -> int:
    """A number below 2 ** 31 that depends on all ids and their order."""
    digest = 0
    for token in ids.tolist():
        digest = (digest * 1_000_003 + token + 1) % (2**31)
    return digest
