"""Chat messages of lmms-eval as conversations for a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.protocol import ChatMessages
from PIL import Image

from ...data.chat import Conversation
from ...data.media import read_image, read_video, to_rgb, upright


def read_messages(
    messages: Sequence[Mapping[str, Any]], processor: Any, max_num_frames: int
) -> Conversation:
    """The conversation, with images and frames in place of the files.

    Args:
        messages: What a task's `doc_to_messages` returns.
        processor: The model's processor.
        max_num_frames: Most frames to take from each video.

    Raises:
        ImportError, OSError: A file cannot be read.
        ValueError: A file is damaged, or a message has audio or asks for part of a video.
    """
    turns = ChatMessages(messages=list(messages)).messages
    return [
        {
            "role": turn.role,
            "content": [_part(part, processor, max_num_frames) for part in turn.content],
        }
        for turn in turns
    ]


def _part(part: Any, processor: Any, max_num_frames: int) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type == "image":
        return {"type": "image", "image": _image(part.url)}
    if part.type == "video":
        return {"type": "video", "video": _frames(part, processor, max_num_frames)}
    raise ValueError(
        f"The task has {part.type} in its messages, but only text, images and videos can be asked "
        "about: choose another task."
    )


def _image(image: Any) -> Image.Image:
    return upright(image) if isinstance(image, Image.Image) else read_image(image)


def _frames(part: Any, processor: Any, max_num_frames: int) -> list[Image.Image]:
    video = part.url
    if part.start_time is not None or part.end_time is not None or isinstance(video, Mapping):
        raise ValueError(
            "The task asks about part of a video (start and end times), which cannot be read: cut "
            "the videos into files first, or choose another task."
        )
    if isinstance(video, str | Path):
        return read_video(video, processor, max_num_frames)
    return [to_rgb(frame) for frame in video]


def batch_key(conversation: Conversation) -> tuple[Any, ...]:
    """Conversations with equal keys fit in one batch: kinds of visuals, and frames per video."""
    parts = [part for turn in conversation for part in turn["content"]]
    kinds = {part["type"] for part in parts} - {"text"}
    frames = {len(part["video"]) for part in parts if part["type"] == "video"}
    return tuple(sorted(kinds)), tuple(sorted(frames))
