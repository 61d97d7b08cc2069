"""Position ids that keep the grid of an image and move later text up: a pure tensor function."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_position_ids(
    position_ids: Tensor, keep: Tensor, visual_mask: Tensor, run_starts: Tensor
) -> Tensor:
    """Number each prompt as if its images ended with the last grid row or column that is kept.

    The policy is called "grid" because the grid inside an image is what it keeps: visual tokens
    keep their ids relative to the start of their run, the visual tokens of one image or video
    without text between them. Whatever follows a run starts right behind the largest id that is
    kept of it, or where the run started if none is. Only what is dropped at the end of a run
    therefore moves later tokens.

    Args:
        position_ids: int64 [A, B, S] or [B, S] of the whole prompt. The last two of several axes
            are height and width: they alone say where text goes on, as in the models with
            multimodal rotary positions, where time may run ahead of the text after a video.
        keep: bool [B, S], True on tokens that stay.
        visual_mask: bool [B, S], True on visual tokens.
        run_starts: bool [B, S], True on the first token of each run.

    Returns:
        int64, the shape of `position_ids`; those of dropped tokens mean nothing.

    Source:
        The pruning of visual tokens in OpenVINO GenAI.
    """
    places = position_ids if position_ids.ndim == 3 else position_ids[None]
    last = places[-2:].amax(dim=0)  # [B, S]
    first = places[-2:].amin(dim=0)  # [B, S]
    started = run_starts.long().cumsum(dim=1)  # [B, S]
    # Run 0 collects the tokens that are not visual.
    run = torch.where(visual_mask, started, 0)  # [B, S]
    runs = position_ids.new_zeros(len(keep), int(started.max()) + 1 if keep.numel() else 1)
    # 1. How much of the end of each run is dropped.
    end = runs.scatter_reduce(1, run, last + 1, "amax", include_self=False)  # [B, runs]
    start = runs.scatter_reduce(1, run, first, "amin", include_self=False)  # [B, runs]
    kept = torch.where(keep, last + 1, start.gather(1, run))  # [B, S]
    closed = end - runs.scatter_reduce(1, run, kept, "amax", include_self=False)  # [B, runs]
    closed[:, 0] = 0
    # 2. Tokens move up by what the runs before them lost, so not by what their own loses.
    shift = closed.cumsum(dim=1).gather(1, started) - closed.gather(1, run)  # [B, S]
    return position_ids - shift
