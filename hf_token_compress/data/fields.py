"""From a JSON object, or an example of a dataset, to a sample."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from PIL import Image

from .media import read_image, upright
from .sample import Sample
from .scenes import Box

KEYS = ("image", "video", "question", "answer", "kind", "relevant_boxes", "relevant_frames")
"""The keys of a sample in a file."""

_SIDES = 4


def check_keys(fields: Any, name: str) -> None:
    """Raise `ValueError` if a JSON object, called `name` in the message, has a misspelt key."""
    keys = list(fields) if isinstance(fields, Mapping) else []
    absent = [key for key in KEYS if key not in keys]
    for key in keys:
        # A lower cutoff takes "id" for "kind".
        if key not in KEYS and (meant := get_close_matches(key.lower(), absent, 1, cutoff=0.8)):
            raise ValueError(
                f"{name} has the unknown key {key!r} (did you mean {meant[0]!r}?): rename it."
            )


def sample_from_fields(fields: Any, folder: Path) -> Sample:
    """Read the images of a JSON object or of a dataset's example.

    Args:
        fields: The values by key; unknown keys are ignored.
        folder: What its paths are relative to.

    Raises:
        OSError: An image cannot be read.
        ValueError: Something is missing, or is something else.
    """
    if not isinstance(fields, Mapping):
        raise ValueError("the sample is not a JSON object")
    question = fields.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("the sample has no question")
    images, video = fields.get("image"), fields.get("video")
    if (images is None) == (video is None):
        raise ValueError('the sample needs either "image" or "video"')
    if isinstance(video, str):
        video = str(folder / video)
    elif isinstance(video, list):
        video = _images(video, folder)
    visuals = _images(images, folder) if video is None else (video,)
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
    return Sample(
        modality="image" if video is None else "video",
        visuals=visuals,
        question=question,
        answer=_text(fields.get("answer")),
        kind=_text(fields.get("kind")),
        relevant_boxes=boxes,
        relevant_frames=frames,
    )


def _images(images: Any, folder: Path) -> tuple[Image.Image, ...]:
    listed = images if isinstance(images, list) else [images]
    if not listed:
        raise ValueError("the sample has no image")
    return tuple(_image(item, folder) for item in listed)


def _image(item: Any, folder: Path) -> Image.Image:
    if isinstance(item, Image.Image):
        return upright(item)
    if not isinstance(item, str):
        raise ValueError(f"an image must be a path, not {type(item).__name__}")
    return read_image(folder / item)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _boxes(value: Any) -> tuple[Box, ...] | None:
    if value is None:
        return None
    boxes = [_numbers(box, "relevant_boxes") for box in value] if isinstance(value, list) else [()]
    if any(len(box) != _SIDES for box in boxes):
        raise ValueError('"relevant_boxes" must be a list of [left, top, right, bottom]')
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)


def _numbers(value: Any, key: str) -> tuple[int, ...]:
    numbers = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(item, int | float) for item in numbers):
        raise ValueError(f'"{key}" must hold numbers')
    return tuple(numbers)
