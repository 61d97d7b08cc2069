"""Counters on vLLM's own metrics endpoint."""

from __future__ import annotations

import functools
from typing import Any


def count_visual_tokens(model_name: str, before: int, after: int) -> None:
    """Count the visual tokens of a prompt, before and after compression."""
    for counter, count in zip(_counters(), (before, after), strict=True):
        counter.labels(model_name=model_name).inc(count)


@functools.cache
def _counters() -> tuple[Any, Any]:
    # Made late: a server with several front ends first says where they share counts.
    from prometheus_client import Counter

    prefix = "hf_token_compress:visual_tokens"
    return (
        Counter(f"{prefix}_before", "Visual tokens of prompts before compression.", ["model_name"]),
        Counter(f"{prefix}_after", "Visual tokens of prompts that were kept.", ["model_name"]),
    )
