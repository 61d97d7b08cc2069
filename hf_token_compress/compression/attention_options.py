"""The arguments with which Transformers calls an attention implementation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NOT_SCORED = ("position_bias", "alibi", "head_mask", "indices", "block_indices", "sinks")
"""Arguments that change an attention map in ways that scoring does not compute."""

NOT_PLAIN = ("softcap", "s_aux", *NOT_SCORED)
"""Arguments that make an attention map more than a softmax of scaled and masked logits."""


def given_options(options: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of the names that have a value."""
    return [name for name in names if options.get(name) is not None]


def is_causal(module: Any, options: Mapping[str, Any]) -> bool:
    """Whether queries see keys up to their own position where there is no mask."""
    given = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)
