"""Scorer options that cannot be used are refused when they are set, not at the first call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hf_token_compress import TokenCompressionConfig, load_tiny

from ..outcome import report

SETTINGS: tuple[dict[str, Any], ...] = (
    {"scorer": "attention", "scorer_options": {"scoring_depth": 99}},
    {"scorer": "random", "scorer_options": {"seed": 2**70}},
)


def problems() -> Iterator[str]:
    """Load a model with each setting."""
    for setting in SETTINGS:
        try:
            load_tiny("qwen2-vl", token_compression=TokenCompressionConfig(**setting))
        except ValueError:
            continue
        yield f"{setting} is accepted"


if __name__ == "__main__":
    report(problems)
