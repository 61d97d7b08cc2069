"""Read images and videos from files, as the models' processors take them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from ..hub import first_line
from .sample import Sample

# Pillow has these extensions, but cannot decode the files.
_NOT_ANIMATIONS = (".mpg", ".mpeg")
_EIGHT_BITS = 255

Frame = TypeVar("Frame")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; greyscale of 16 bits is scaled to 8 bits rather than clipped."""
    if image.mode.startswith("I"):
        values = np.asarray(image)  # [H, W]
        values = values >> 8 if values.max(initial=0) > _EIGHT_BITS else values
        image = Image.fromarray(values.astype(np.uint8))
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image in RGB, turned as its EXIF tag says, as Transformers reads the images of prompts.

    Unlike there, greyscale of 16 bits is scaled to 8 bits rather than clipped.
    """
    return to_rgb(ImageOps.exif_transpose(image))


def read_image(path: str | Path) -> Image.Image:
    """The image in a file, RGB and upright.

    Raises:
        OSError: There is no such file.
        ValueError: It is not an image that can be read.
    """
    try:
        with Image.open(path) as image:
            return upright(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image file {str(path)!r}.") from None
    except IsADirectoryError:
        raise IsADirectoryError(_folder_for_image(path)) from None
    except UnidentifiedImageError:
        raise ValueError(f"{str(path)!r} is not an image that can be read.") from None
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError(f"The image {str(path)!r} cannot be read: {_reason(error)}.") from error


def decode_image(content: bytes) -> Image.Image:
    """The image in the bytes of a file, RGB and upright.

    Raises:
        ValueError: It is not an image that can be read.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return upright(image)
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError("The image that the data holds cannot be read.") from error


def read_frames(paths: Sequence[str | Path]) -> list[Image.Image]:
    """The images in files as the frames of one video, RGB and upright.

    Raises:
        OSError: There is no such file.
        ValueError: One is not an image that can be read, or is not as large as the first.
    """
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.size != frames[0].size:
            raise ValueError(
                f"The frames of a video must have one size, but {str(paths[0])!r} has "
                f"{_size(frames[0])} pixels and {str(path)!r} {_size(frame)}: resize them."
            )
    return frames


def check_image(path: str | Path) -> None:
    """Raise unless there is such a file.

    Raises:
        FileNotFoundError: There is none.
        IsADirectoryError: It is a folder.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(_folder_for_image(path))
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no image file {str(path)!r}.")


def check_video(path: str | Path) -> None:
    """Raise unless there is such a file or folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no video file {str(path)!r}.")


def read_video(
    path: str | Path, processor: Any, num_frames: int | None = None
) -> list[Image.Image]:
    """The frames of a video that the model sees, RGB.

    The images of a folder are its frames, in the order of their names. The processor's own sampler
    chooses among the frames. Pillow decodes animated images; PyAV, or torchcodec without it, all
    other files.

    Args:
        path: The file or folder.
        processor: The model's processor.
        num_frames: Frames to take, about: some processors round it. By default all of a folder,
            and of a file as many as the processor says. All, if the video has no more.

    Raises:
        ImportError: No decoder is installed.
        OSError: There is no such file.
        ValueError: It is not a video that can be read, or its frames differ in size.
    """
    check_video(path)
    path, images = Path(path), Image.registered_extensions()
    choose = partial(frames_to_take, processor, num_frames=num_frames)
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in images]
        if not files:
            raise ValueError(f"The folder {str(path)!r} has no images to use as frames.")
        if num_frames is not None:
            files = _sampled(path, files, choose)
        return read_frames(files)
    suffix = path.suffix.lower()
    if suffix in images and suffix not in _NOT_ANIMATIONS:
        return _read_animation(path, choose)
    return _decode(path, choose)


def frames_to_take(processor: Any, metadata: Any, num_frames: int | None = None) -> list[int]:
    """Which frames of a video the processor's own sampler takes.

    Args:
        processor: The model's processor.
        metadata: What is known of the video, a Transformers `VideoMetadata`.
        num_frames: How many frames to ask for; by default as many as the processor says.

    Raises:
        ValueError: The number of the video's frames is unknown, or the sampler refuses.
    """
    total = int(metadata.total_num_frames or 0)
    if total < 1:
        raise ValueError("it does not say how many frames it has")
    sampler = getattr(processor, "video_processor", None) or processor
    if num_frames is None:
        takes_all = not getattr(sampler, "do_sample_frames", True)
    else:
        takes_all = num_frames >= total
    if takes_all:
        return list(range(total))
    try:
        return [int(index) for index in sampler.sample_frames(metadata, num_frames=num_frames)]
    except ZeroDivisionError:
        # Processors of models that join frames round the number, down to none.
        raise ValueError(
            f"the processor cannot take {num_frames} of its frames, so ask for more"
        ) from None


def with_frames(sample: Sample, processor: Any, num_frames: int | None = None) -> Sample:
    """The sample itself, with the frames of its video in place of the path.

    The relevant boxes of a video file are dropped.

    Raises:
        ImportError, OSError, ValueError: As `read_video`.
    """
    if not sample.is_video_file:
        return sample
    frames = read_video(sample.visuals[0], processor, num_frames)
    # Boxes count the frames of the file, not those that were taken.
    return dataclasses.replace(
        sample, visuals=(tuple(frames),), relevant_boxes=None, relevant_frames=()
    )


def _sampled(
    path: Path,
    frames: Sequence[Frame],
    choose: Callable[[Any], Sequence[int]],
    fps: float | None = None,
) -> list[Frame]:
    from transformers.video_utils import VideoMetadata

    try:
        return [frames[index] for index in choose(VideoMetadata(len(frames), fps=fps))]
    except Exception as error:  # samplers raise errors of many kinds
        raise ValueError(f"The video {str(path)!r} cannot be read: {_reason(error)}.") from error


def _read_animation(path: Path, choose: Callable[[Any], Sequence[int]]) -> list[Image.Image]:
    first = read_image(path)
    try:
        with Image.open(path) as animation:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
            milliseconds = animation.info.get("duration") or 0
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError(f"The video {str(path)!r} cannot be read: {_reason(error)}.") from error
    if len(frames) == 1:
        return [first]
    fps = 1000 / milliseconds if milliseconds else None
    return _sampled(path, frames, choose, fps)


def _decode(path: Path, choose: Callable[[Any], Sequence[int]]) -> list[Image.Image]:
    from transformers.utils.import_utils import is_av_available, is_torchcodec_available
    from transformers.video_utils import load_video

    if is_av_available():
        backend = "pyav"
    elif is_torchcodec_available():
        backend = "torchcodec"
    else:
        raise ImportError(
            "Videos are decoded with PyAV, which is not installed: pip install "
            "'hf-token-compress[video]'."
        )
    file: Any = str(path)  # the annotation forgets files
    try:
        decoded: Any = load_video(
            file, backend=backend, sample_indices_fn=lambda metadata, **_: choose(metadata)
        )
        frames = [_as_image(frame) for frame in decoded[0]]
    except Exception as error:  # decoders raise errors of many kinds
        raise ValueError(f"The video {str(path)!r} cannot be read: {_reason(error)}.") from error
    if not frames:
        raise ValueError(f"The video {str(path)!r} cannot be read: it has no frames.")
    return frames


def _as_image(frame: Any) -> Image.Image:
    """One decoded frame: uint8 [H, W, 3] of PyAV, or [3, H, W] of torchcodec."""
    values = np.asarray(frame)
    return Image.fromarray(values if values.shape[-1] == 3 else values.transpose(1, 2, 0))


def _folder_for_image(path: str | Path) -> str:
    return f"{str(path)!r} is a folder, not an image file."


def _size(image: Image.Image) -> str:
    return f"{image.width} × {image.height}"


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(".")
