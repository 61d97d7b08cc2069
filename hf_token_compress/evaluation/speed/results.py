"""What a benchmark finds: speed and memory of one setting on one batch of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .timing import Spread


@dataclass(frozen=True)
class Comparison:
    """Ratios of times, repeat by repeat.

    Attributes:
        first_token: Time to the first token.
        next_token: Time of each further token; None if none was generated.
    """

    first_token: Spread
    next_token: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """Median and quartiles of each ratio."""
        return _plain(self)


@dataclass(frozen=True)
class SpeedResult:
    """Speed and memory of one setting on one batch of prompts. Times are in milliseconds.

    Attributes:
        scorer: Name of the scorer; None for the uncompressed model.
        retention_ratio: Share of visual tokens asked for; 1.0 for the uncompressed model.
        batch_size: Prompts in the batch.
        visual_tokens: Visual tokens of each prompt.
        kept_visual_tokens: Those that the language model sees.
        prompt_tokens: All tokens of each prompt that the language model sees.
        vision: The vision part, which costs the same with and without compression.
        scoring: The scorer; None for the uncompressed model.
        rewriting: Selection and rewriting.
        first_token: From the encoded images to the first token: scoring, rewriting and prefill.
        next_token: Each further token; None if none was generated.
        kv_bytes: Bytes of the KV cache after the prompt.
        peak_bytes: Bytes at the peak until the first token, beyond what was held before; None
            where the system does not say.
        to_full: Ratios to the uncompressed model.
        to_ideal: Ratios to the stock model on the kept tokens alone, without scoring.
    """

    scorer: str | None
    retention_ratio: float
    batch_size: int
    visual_tokens: int
    kept_visual_tokens: int
    prompt_tokens: int
    vision: Spread
    scoring: Spread | None
    rewriting: Spread | None
    first_token: Spread
    next_token: Spread | None
    kv_bytes: int
    peak_bytes: int | None
    to_full: Comparison | None
    to_ideal: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; of times and ratios the median and the quartiles."""
        return _plain(self)


def _plain(item: Any) -> dict[str, Any]:
    return {
        name: value.to_dict() if isinstance(value, Spread | Comparison) else value
        for name, value in vars(item).items()
    }
