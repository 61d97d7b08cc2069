"""Ask a loaded model one question, and time it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL import Image

    from .compression.report import CompressionReport
    from .config import SettingLike


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with compression on it, in evaluation mode, and its processor."""

    name: str
    model: Any
    processor: Any

    @property
    def hub_id(self) -> str | None:
        """Its name on the Hub; None for a folder."""
        return None if Path(self.name).exists() else self.name


@dataclass(frozen=True)
class Answer:
    """What a model said, and what it cost.

    Attributes:
        text: The answer, without special tokens.
        new_tokens: Tokens that were generated.
        milliseconds: Of the whole call: vision, scoring, rewriting and generation.
        kv_bytes: Bytes of the KV cache after the answer.
        report: Of this call; None after a call of the stock model.
    """

    text: str
    new_tokens: int
    milliseconds: float
    kv_bytes: int
    report: CompressionReport | None


def prepare_question(
    checkpoint: Checkpoint,
    images: Sequence[Image.Image],
    text: str,
    videos: Sequence[Sequence[Image.Image]] = (),
) -> Mapping[str, Any]:
    """One user turn: images, then videos, then the text, as tensors on the model's device.

    Raises:
        ValueError: An image has a shape that the processor refuses, the text holds a placeholder,
            or it is longer than the model has positions.
    """
    from .data.chat import encode, user_turn

    inputs = encode(checkpoint.processor, [user_turn(text, images, videos)])
    _check_length(checkpoint, inputs)
    prepared: Mapping[str, Any] = inputs.to(checkpoint.model.device, checkpoint.model.dtype)
    return prepared


def _check_length(checkpoint: Checkpoint, inputs: Mapping[str, Any]) -> None:
    """Raise where the text alone has more tokens than positions; compression drops none of it."""
    from .compression.inputs import is_placeholder
    from .config import MODALITIES
    from .models.registry import model_family

    model = checkpoint.model
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    family = model_family(model.stock_class)
    length = inputs["input_ids"].numel() - sum(
        int(is_placeholder(model, family, inputs, modality).sum()) for modality in MODALITIES
    )
    if positions is not None and length > positions:
        raise ValueError(
            f"The text of the prompt has {length} tokens, but the model has only {positions} "
            "positions: ask a shorter question."
        )


def answer(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Any],
    *,
    max_new_tokens: int,
    token_compression: SettingLike | Literal[False] | None = None,
) -> Answer:
    """Answer by greedy decoding, and time the whole call.

    Args:
        checkpoint: The model.
        inputs: From `prepare_question`.
        max_new_tokens: Most tokens to generate.
        token_compression: Setting of this call, as `generate` takes it; False runs the stock model.

    Raises:
        TypeError, ValueError: The setting is not valid or does not fit the model.
    """
    from .compression.stopwatch import Stopwatch
    from .evaluation.speed.bench import cache_bytes

    model = checkpoint.model
    stopwatch = Stopwatch(model.device)
    with stopwatch.running():
        output = model.generate(
            **inputs,
            token_compression=token_compression,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
        )
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    return Answer(
        text=checkpoint.processor.decode(new_ids, skip_special_tokens=True).strip(),
        new_tokens=len(new_ids),
        milliseconds=stopwatch.milliseconds,
        kv_bytes=cache_bytes(output),
        report=model.token_compression.last,
    )
