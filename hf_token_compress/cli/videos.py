"""Read the videos that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..hub import first_line
from .errors import CommandError
from .pictures import read_frames


def read_video(path: Path, frames: int) -> list[Image.Image]:
    """Frames of a video, evenly spaced from its first to its last, RGB.

    A folder of images, and an animated image, are read as such; Transformers decodes any other
    file, with PyAV or, where that is missing, with torchcodec.

    Args:
        path: The file or folder.
        frames: How many frames; all, where the video has fewer.

    Raises:
        CommandError: There is no such file, it is no readable video, or no decoder is installed.
    """
    if path.is_dir() or path.suffix.lower() in Image.registered_extensions():
        found = read_frames(path)
        return [found[number] for number in _evenly_spaced(len(found), frames)]
    if not path.exists():
        raise CommandError(f"There is no video file {str(path)!r}.")
    return _decode(path, frames)


def _decode(path: Path, frames: int) -> list[Image.Image]:
    from transformers.utils.import_utils import is_av_available, is_torchcodec_available
    from transformers.video_utils import load_video

    if is_av_available():
        backend = "pyav"
    elif is_torchcodec_available():
        backend = "torchcodec"
    else:
        raise CommandError(
            "Videos are decoded with PyAV, which is not installed: pip install "
            "'hf-token-compress[video]'."
        )

    def sampled(metadata: Any, **_: Any) -> NDArray[np.int64]:
        if metadata.total_num_frames < 1:
            raise ValueError("it does not say how many frames it has")
        return _evenly_spaced(metadata.total_num_frames, frames)

    try:
        file: Any = str(path)  # the annotation forgets files
        decoded: Any = load_video(file, backend=backend, sample_indices_fn=sampled)
        pictures = [Image.fromarray(np.asarray(frame)) for frame in decoded[0]]
    except Exception as error:  # decoders raise errors of their own of many kinds
        raise CommandError(
            f"{str(path)!r} is not a video that can be read: {first_line(error)}"
        ) from error
    if not pictures:
        raise CommandError(f"{str(path)!r} is not a video that can be read: it has no frames.")
    return pictures


def _evenly_spaced(total: int, frames: int) -> NDArray[np.int64]:
    return np.linspace(0, total - 1, min(frames, total)).round().astype(np.int64)
