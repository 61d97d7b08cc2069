"""Leave one visual token out at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import check_count
from ..replay import Replay
from .base import Rule


class OcclusionRule(Rule):
    """Log-probability that the answer loses when the token is removed.

    It needs one forward pass per visual token, and does not see what two tokens both show.

    Args:
        batch_size: Shortened prompts that are run at once, at least 1.

    Raises:
        TypeError: `batch_size` is no whole number.
        ValueError: It is below 1.
    """

    def __init__(self, batch_size: int = 32) -> None:
        check_count("batch_size", batch_size, at_least=1)
        self.batch_size = batch_size

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """See `Rule.explain`."""
        whole, _ = replay.forward_pass(keep).answer_log_probabilities()  # [B, T]
        found = torch.zeros(len(targets), *keep.shape, device=keep.device)
        left_out = [
            (row, column)
            for row, columns in enumerate(replay.visual_columns)
            for column in columns[keep[row, columns]].tolist()
        ]
        for start in range(0, len(left_out), self.batch_size):
            chunk = left_out[start : start + self.batch_size]
            rows, columns = map(list, zip(*chunk, strict=True))
            without = keep[rows].clone()
            without[range(len(rows)), columns] = False
            shorter, _ = replay.select(rows).forward_pass(without).answer_log_probabilities()
            lost = (whole[rows] - shorter) * targets[:, rows]  # [G, chunk, T]
            found[:, rows, columns] = lost.sum(-1)
        return found
