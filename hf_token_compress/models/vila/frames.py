"""Videos as lists of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers.image_utils import is_valid_image

_FRAME_AXES, _VIDEO_AXES = 3, 4


def frame_lists(videos: Any) -> list[list[Any]]:
    """The frames of each video.

    Args:
        videos: A video, or a list of them, nested as it may be. A video is a file's path or
            address, a list of pictures, or an array [frames, …] of them.

    Raises:
        TypeError: Something is none of these.
    """
    if isinstance(videos, str | Path):
        from transformers.video_utils import load_video

        address: Any = str(videos)
        frames, _ = load_video(address)
        return [list(frames)]
    axes = getattr(videos, "ndim", None)
    if axes == _VIDEO_AXES:
        return [list(videos)]
    if _is_frame(videos):
        return [[videos]]
    if not isinstance(videos, list | tuple) and axes is None:
        raise TypeError(
            "A video must be a path, a list of pictures or an array of them, not "
            f"{type(videos).__name__}."
        )
    items = list(videos)
    if items and all(_is_frame(item) for item in items):
        return [items]
    return [video for item in items for video in frame_lists(item)]


def _is_frame(item: Any) -> bool:
    return is_valid_image(item) and getattr(item, "ndim", _FRAME_AXES) == _FRAME_AXES


def sample_frames(frames: list[Any], count: int) -> list[Any]:
    """`count` frames from the first to the last, evenly; all where there are not more."""
    if len(frames) <= count:
        return frames
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count, dtype=int)]
