"""Leave out one visual token at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ...checks import check_count
from ..replay import Replay
from .base import Rule


class OcclusionRule(Rule):
    """Log-probability that the answer loses when a token is removed.

    Occlusion sensitivity of Zeiler and Fergus 2013 (arXiv 1311.2901, section 4.2) with tokens in
    place of image patches. It needs one forward pass per visual token, and misses what two tokens
    both show.

    Args:
        batch_size: Shortened prompts per forward pass, at least 1.

    Raises:
        TypeError: `batch_size` is not a whole number.
        ValueError: `batch_size` is below 1.
    """

    def __init__(self, batch_size: int = 32) -> None:
        check_count("batch_size", batch_size, at_least=1)
        self.batch_size = batch_size

    @override
    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        # Log-probabilities with all tokens.
        whole, _ = replay.forward_pass(keep).answer_log_probabilities()  # [B, T]
        found = torch.zeros(len(targets), *keep.shape, dtype=torch.float32, device=keep.device)
        # One removal per visual token that is still there.
        removals = [
            (sample, position)
            for sample, positions in enumerate(replay.visual_positions)
            for position in positions[keep[sample, positions]].tolist()
        ]
        for start in range(0, len(removals), self.batch_size):
            chunk = removals[start : start + self.batch_size]  # C removals
            samples, positions = map(list, zip(*chunk, strict=True))
            shorter = keep[samples].clone()  # [C, S]
            shorter[range(len(samples)), positions] = False
            left, _ = replay.select(samples).forward_pass(shorter).answer_log_probabilities()
            lost = (whole[samples] - left) * targets[:, samples]  # [G, C, T]
            found[:, samples, positions] = lost.sum(-1)
        return found
