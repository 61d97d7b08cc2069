"""From a row of data to a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from .answer_fields import read_answers, read_question
from .choices import as_text, is_missing, read_choices
from .download import is_address
from .media import check_image, check_video, decode_image, read_image, upright
from .media_folder import MediaFolder
from .sample import Sample
from .scenes import Box

_SIDES = 4

HELD = object()
"""Stands for an image or a video that a data set holds itself, where it is not decoded."""


def sample_from_fields(
    fields: Mapping[str, Any],
    folder: MediaFolder,
    *,
    prompt_suffix: str | None = None,
    decoded: bool = True,
) -> Sample:
    """Read a sample, and its images.

    Args:
        fields: What is known of it, by the keys of `USUAL_NAMES`.
        folder: What its paths are relative to.
        prompt_suffix: Of the sample.
        decoded: Whether images are read; otherwise paths are looked up, and the sample has them, or
            whatever else stands for an image, in place of the images.

    Raises:
        OSError: An image cannot be read, or, where none is decoded, a video is not there.
        ValueError: Something is missing, or is something else.
    """
    question, answer = read_question(fields.get("question"))
    images, video = (
        None if is_missing(item) else item for item in (fields.get("image"), fields.get("video"))
    )
    if images is video is HELD:
        video = None  # which of the two columns holds something is not known yet
    if (images is None) == (video is None):
        raise ValueError('the sample needs either "image" or "video"')
    if isinstance(video, list):
        video = _images(video, folder, decoded)
    elif video is not None:
        video = _video(video, folder, decoded)
    visuals = _images(images, folder, decoded) if video is None else (video,)
    boxes = _boxes(fields.get("relevant_boxes"))
    frames = _numbers(fields.get("relevant_frames") or (), "relevant_frames")
    if video is not None and boxes is not None and len(frames) != len(boxes):
        raise ValueError('"relevant_frames" must have one number for each of "relevant_boxes"')
    if isinstance(video, tuple):
        for frame in frames:
            if frame not in range(len(video)):
                raise ValueError(
                    f'"relevant_frames" has the frame {frame}, but the video has {len(video)} '
                    "frames, counted from 0"
                )
    choices = read_choices(fields.get("choices"))
    given = fields.get("answer")
    answers = read_answers(answer if given is None else given, choices)
    kind = fields.get("kind")
    return Sample(
        modality="image" if video is None else "video",
        visuals=visuals,
        question=question,
        answer=answers[0] if answers else None,
        kind=None if kind is None else str(kind),
        relevant_boxes=boxes,
        relevant_frames=frames,
        other_answers=answers[1:],
        choices=choices,
        prompt_suffix=prompt_suffix,
    )


def _images(images: Any, folder: MediaFolder, decoded: bool) -> tuple[Any, ...]:
    listed = images if isinstance(images, list) else [images]
    if not listed:
        raise ValueError("the sample has no image")
    return tuple(_image(item, folder, decoded) for item in listed)


def _image(item: Any, folder: MediaFolder, decoded: bool) -> Any:
    if isinstance(item, Mapping) and {"bytes", "path"} & set(item):
        if item.get("bytes") is not None:
            return decode_image(item["bytes"]) if decoded else HELD
        item = item.get("path")
    if isinstance(item, Image.Image):
        return upright(item) if decoded else item
    if item is HELD:
        return item
    if not isinstance(item, str):
        raise ValueError(f"an image must be a path, not {type(item).__name__}")
    _check_file("image", item)
    path = folder.path(item, "image")
    if decoded:
        return read_image(path)
    check_image(path)
    return path


def _video(item: Any, folder: MediaFolder, decoded: bool) -> Any:
    if isinstance(item, Mapping):
        item = item.get("path")
    if item is HELD:
        return item
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise ValueError(f"a video must be a path or a list of images, not {type(item).__name__}")
    _check_file("video", as_text(item))
    path = folder.path(as_text(item), "video")
    if not decoded:
        check_video(path)
    return str(path)


def _check_file(modality: str, name: str) -> None:
    if is_address(name):
        raise ValueError(f"its {modality} {name!r} is an address, but must be a downloaded file")


def _boxes(value: Any) -> tuple[Box, ...] | None:
    if value is None:
        return None
    boxes = [_numbers(box, "relevant_boxes") for box in value] if isinstance(value, list) else [()]
    if any(len(box) != _SIDES for box in boxes):
        raise ValueError('"relevant_boxes" must be a list of [left, top, right, bottom]')
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)


def _numbers(value: Any, key: str) -> tuple[int, ...]:
    numbers = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(item, int | float) and math.isfinite(item) for item in numbers):
        raise ValueError(f'"{key}" must hold finite numbers')
    return tuple(numbers)
