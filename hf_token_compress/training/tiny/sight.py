"""How the tiny models that see clips are shown pictures and clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from hf_token_compress.scenes import Scene

LaidOut: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""(B, N, D) what stands between opening and closing of a prompt, and (N,) bool: what of it is
text, which is never dropped."""


@dataclass(frozen=True)
class Sight:
    """What one family does with pictures of 4 x 4 cells.

    Attributes:
        encode: From B scenes to 64 visual tokens of each, row by row: (B, 64, D).
        lay_out: From these, and the number of frames of each clip (0: they are pictures), to what
            stands in prompts.
        opening: What the chat template puts before it.
        closing: What it puts after it.
    """

    encode: Callable[[Sequence[Scene]], torch.Tensor]
    lay_out: Callable[[torch.Tensor, int], LaidOut]
    opening: str
    closing: str
