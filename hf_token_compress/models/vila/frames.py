"""Videos as lists of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.image_utils import is_valid_image

_FRAME_AXES, _VIDEO_AXES = 3, 4


def frame_lists(videos: Any, count: int | None = None) -> list[list[Any]]:
    """The frames of each video.

    Args:
        videos: A video, or a (nested) list of videos. A video is the path or URL of a file, a list
            of images, or an array [frames, …] of images.
        count: Frames to sample, evenly from the first to the last; None, or a video with fewer,
            gives all frames.

    Raises:
        TypeError: `videos` holds something else.
        ValueError: A file does not say how many frames it has.
    """
    if isinstance(videos, str | Path):
        return [_read(str(videos), count)]
    axes = getattr(videos, "ndim", None)
    if axes != _VIDEO_AXES and _is_frame(videos):
        return [[videos]]
    if not isinstance(videos, list | tuple) and axes is None:
        raise TypeError(
            "A video must be a path, a list of images or an array of images, not "
            f"{type(videos).__name__}."
        )
    items = list(videos)
    if axes == _VIDEO_AXES or (items and all(_is_frame(item) for item in items)):
        return [[items[index] for index in even_indices(len(items), count)]]
    return [video for item in items for video in frame_lists(item, count)]


def even_indices(total: int, count: int | None) -> NDArray[np.int64]:
    """Indices of the sampled frames, int64 [min(total, count)]."""
    taken = total if count is None else min(total, count)
    return np.linspace(0, total - 1, taken).astype(np.int64)


def _is_frame(item: Any) -> bool:
    return is_valid_image(item) and getattr(item, "ndim", _FRAME_AXES) == _FRAME_AXES


def _read(address: Any, count: int | None) -> list[Any]:
    from transformers.video_utils import load_video

    def wanted(metadata: Any, **_: Any) -> NDArray[np.int64]:
        total = int(metadata.total_num_frames or 0)
        if total < 1:
            raise ValueError(
                f"The video {address!r} does not say how many frames it has: pass its frames."
            )
        return even_indices(total, count)

    frames, _ = load_video(address, sample_indices_fn=wanted)
    return list(frames)
