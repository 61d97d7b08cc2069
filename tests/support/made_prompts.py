"""Prompts for scores that can be worked out by hand, and the reading of a stock model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_token_compress.compression.inputs import read_layout
from hf_token_compress.compression.reading import Reading, read
from hf_token_compress.models.registry import model_family
from hf_token_compress.prompt import MultimodalPrompt, TokenGrid, VisualSpan


def made_prompt(
    visual: Sequence[Sequence[float]] | Tensor,
    words: Sequence[Sequence[float]] | Tensor,
    shape: tuple[int, int, int] | None = None,
) -> MultimodalPrompt:
    """One prompt: padding, an image or the frames of a video, and the words that ask.

    Args:
        visual: float [N, D].
        words: float [R, D].
        shape: (frames, rows, columns) of the grid over the first tokens; all N in one row by
            default. Tokens after them lie on no grid.
    """
    visual, words = torch.as_tensor(visual), torch.as_tensor(words)
    frames, rows, columns = shape or (1, 1, len(visual))
    embeds = torch.cat([torch.full((1, visual.shape[1]), torch.nan), visual, words])[None]
    place = torch.arange(embeds.shape[1])[None]  # [1, S]
    visual_mask = (place > 0) & (place <= len(visual))
    index = torch.arange(frames * rows * columns).view(frames, rows, columns)
    span = VisualSpan("image", place[visual_mask], (TokenGrid(index),))
    return MultimodalPrompt(
        input_ids=place,
        position_ids=place,
        attention_mask=place > 0,
        visual_mask=visual_mask,
        instruction_mask=~visual_mask,  # the padding too, as a caller's mask may
        visuals=((span,),),
        embed=lambda: embeds,
    )


def reading_of(model: Any, inputs: Mapping[str, Any]) -> Reading:
    """What scorers of a stock model see of a batch."""
    family = model_family(type(model))
    return read(model, family, read_layout(model, family, inputs), inputs, "last_turn")
