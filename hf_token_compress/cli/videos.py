"""Read the videos that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import CommandError, first_line


def read_video(path: Path, frames: int) -> list[Image.Image]:
    """Frames of a video file, evenly spaced from its first to its last, RGB.

    Transformers decodes it, with PyAV or, where that is missing, with torchcodec.

    Args:
        path: The file.
        frames: How many frames; all, where the video has fewer.

    Raises:
        CommandError: There is no such file, it is no readable video, or no decoder is installed.
    """
    if path.is_dir():
        raise CommandError(f"{str(path)!r} is a folder, not a video file.")
    if not path.exists():
        raise CommandError(f"There is no video file {str(path)!r}.")

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

    def evenly_spaced(metadata: Any, **_: Any) -> NDArray[np.int64]:
        total = metadata.total_num_frames
        if total < 1:
            raise ValueError("it does not say how many frames it has")
        return np.linspace(0, total - 1, min(frames, total)).round().astype(np.int64)

    try:
        file: Any = str(path)  # the annotation forgets files
        decoded: Any = load_video(file, backend=backend, sample_indices_fn=evenly_spaced)
        pictures = [Image.fromarray(np.asarray(frame)) for frame in decoded[0]]
    except Exception as error:  # decoders raise errors of their own of many kinds
        raise CommandError(
            f"{str(path)!r} is not a video that can be read: {first_line(error)}"
        ) from error
    if not pictures:
        raise CommandError(f"{str(path)!r} is not a video that can be read: it has no frames.")
    return pictures
