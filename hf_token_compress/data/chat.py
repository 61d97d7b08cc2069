"""Encode questions as chats: the inputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .media import with_frames
from .sample import Sample

Conversation = list[dict[str, Any]]


def user_turn(
    question: str, images: Iterable[Any] = (), videos: Iterable[Sequence[Any]] = ()
) -> Conversation:
    """A conversation of one turn: images, then videos (their frames), then the question."""
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    # Processors only take lists of frames.
    content += [
        {"type": "video", "video": list(video) if isinstance(video, tuple) else video}
        for video in videos
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def conversation(sample: Sample) -> Conversation:
    """The sample as a conversation of one turn."""
    return user_turn(sample.prompt, **{f"{sample.modality}s": sample.visuals})


def encode_samples(processor: Any, samples: Sequence[Sample], num_frames: int | None = None) -> Any:
    """Model inputs for a batch of samples, padded on the left.

    Args:
        processor: The model's processor.
        samples: The samples; see `batches_of_one_shape` for which go together.
        num_frames: Frames to take of videos that are files or folders, as `read_video` takes it.

    Raises:
        ImportError, OSError, ValueError: A video cannot be read, or the processor refuses an image.
    """
    loaded = [with_frames(sample, processor, num_frames) for sample in samples]
    return encode(processor, [conversation(sample) for sample in loaded])


def encode(processor: Any, conversations: Sequence[Conversation]) -> Any:
    """Model inputs for a batch of conversations whose videos are frames, padded on the left.

    Raises:
        ValueError: A text holds a placeholder, or the processor refuses an image.
    """
    options: dict[str, Any] = {"padding": True, "padding_side": "left"}
    parts = [part for chat in conversations for turn in chat for part in turn["content"]]
    for token in _placeholders(processor):
        if any(part["type"] == "text" and token in part["text"] for part in parts):
            raise ValueError(
                f"The question holds {token!r}, with which this model marks an image or a video: "
                "leave it out of the text."
            )
    if any(part["type"] == "video" for part in parts):
        options["do_sample_frames"] = False  # all given frames are used
    return processor.apply_chat_template(
        list(conversations),
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def batches_of_one_shape(samples: Sequence[Sample]) -> list[list[int]]:
    """Which of the samples fit in one batch: those with the same number of frames.

    Returns:
        Lists of indices, each in order.
    """
    batches: dict[tuple[str, int], list[int]] = {}
    for index, sample in enumerate(samples):
        batches.setdefault((sample.modality, len(sample.frames)), []).append(index)
    return list(batches.values())


def _placeholders(processor: Any) -> list[str]:
    """The tokens that stand for images and videos in the text of a prompt."""
    found = (getattr(processor, name, None) for name in ("image_token", "video_token"))
    return [token for token in found if isinstance(token, str) and token]
