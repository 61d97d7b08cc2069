"""Ask a model one question about images or videos, with all or some of their visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from PIL import Image

    from ..compression.report import CompressionReport


@dataclass(frozen=True)
class Answer:
    """What a model said, and what it cost.

    Attributes:
        text: The answer, without special tokens.
        new_tokens: Tokens that were generated.
        milliseconds: Of the whole call: vision, scoring, rewriting and generation.
        report: What compression did; None where all visual tokens were used.
    """

    text: str
    new_tokens: int
    milliseconds: float
    report: CompressionReport | None


def prepare_question(
    checkpoint: Checkpoint,
    images: Sequence[Image.Image],
    text: str,
    videos: Sequence[Sequence[Image.Image]] = (),
) -> Mapping[str, Any]:
    """One user turn: images, then videos, then the text, as tensors on the model's device.

    Args:
        checkpoint: The model and its processor.
        images: The images.
        text: The question.
        videos: The frames of each video.

    Raises:
        ValueError: An image has a shape that the processor refuses.
    """
    from ..data.chat import encode, user_turn

    inputs = encode(checkpoint.processor, [user_turn(text, images, videos)])
    prepared: Mapping[str, Any] = inputs.to(checkpoint.model.device, checkpoint.model.dtype)
    return prepared


def answer(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Any],
    *,
    max_new_tokens: int,
    all_tokens: bool = False,
    retention_ratio: float | None = None,
) -> Answer:
    """Generate greedily and time it.

    Args:
        checkpoint: The model.
        inputs: From `prepare_question`.
        max_new_tokens: Most tokens to generate.
        all_tokens: Run the stock model, without compression.
        retention_ratio: Overrides the model's setting, in (0, 1].
    """
    from ..compression.stopwatch import Stopwatch

    model = checkpoint.model
    compression = model.token_compression
    stopwatch = Stopwatch(model.device)
    with compression.disabled() if all_tokens else nullcontext(), stopwatch.running():
        sequences = model.generate(
            **inputs,
            retention_ratio=retention_ratio,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
    new_ids = sequences[0, inputs["input_ids"].shape[1] :]
    return Answer(
        text=checkpoint.processor.decode(new_ids, skip_special_tokens=True).strip(),
        new_tokens=len(new_ids),
        milliseconds=stopwatch.milliseconds,
        report=None if all_tokens else compression.last,
    )
