"""Which places of padded sequences are padding, worked out on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def past_end(lengths: Sequence[int], longest: int | None = None) -> Tensor:
    """The padding behind P sequences.

    Args:
        lengths: Length of each sequence.
        longest: N, what they are padded to; by default the largest length.

    Returns:
        bool [P, N] on the CPU, True behind the end of a sequence.
    """
    size = max(lengths, default=0) if longest is None else longest
    return torch.arange(size) >= torch.tensor(lengths)[:, None]
