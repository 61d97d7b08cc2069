"""Arguments of `generate` as the stock method resolves them: given, or from the configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor

from ..models.family import ModelFamily

# The first version whose chunked prefill keeps images.
_CHUNKED_VISUAL_PREFILL = Version("5.23.0")


def generation_setting(model: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A setting of a call: its argument, else from the given config, else from the model's own."""
    configs = (arguments.get("generation_config"), model.generation_config)
    given = [arguments.get(name)] + [getattr(config, name, None) for config in configs]
    return next((value for value in given if value is not None), None)


def check_chunked_prefill(model: Any, arguments: Mapping[str, Any]) -> None:
    """Check that chunked prefill keeps images.

    Raises:
        ValueError: This version of Transformers loses them.
    """
    chunk_size = generation_setting(model, arguments, "prefill_chunk_size")
    if chunk_size is not None and Version(transformers.__version__) < _CHUNKED_VISUAL_PREFILL:
        raise ValueError(
            f"Transformers {transformers.__version__} loses images in chunked prefill: leave "
            f"prefill_chunk_size out, or use Transformers {_CHUNKED_VISUAL_PREFILL}."
        )


def prompt_mask(model: Any, arguments: Mapping[str, Any]) -> Any:
    """The mask of the prompt: the given one, else from padding ids, or None."""
    ids, mask = arguments.get("input_ids"), arguments.get("attention_mask")
    if mask is None and isinstance(ids, Tensor):
        pad = generation_setting(model, arguments, "pad_token_id")
        eos = generation_setting(model, arguments, "eos_token_id")
        if pad is not None and pad not in ([eos] if isinstance(eos, int) else eos or []):
            return (ids != pad).long()
    return mask


def with_inferred_inputs(
    model: Any, family: ModelFamily, arguments: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Add the mask and the position ids that `generate` would infer."""
    ids = arguments.get("input_ids")
    if not isinstance(ids, Tensor):
        return arguments
    added = {}
    mask = prompt_mask(model, arguments)
    if mask is not None:
        added["attention_mask"] = mask
    if arguments.get("position_ids") is None:
        if not isinstance(mask, Tensor) or mask.shape != ids.shape:
            mask = torch.ones_like(ids)
        position_ids = family.generation_position_ids(model, mask)
        if position_ids is not None:
            added["position_ids"] = position_ids
    return {**arguments, **added}


def copies_of_samples(model: Any, arguments: Mapping[str, Any]) -> int:
    """Samples of the cache that `generate` fills for each of the caller's."""
    names = ("num_beams", "num_return_sequences")
    return max(generation_setting(model, arguments, name) or 1 for name in names)


def shortened_limits(model: Any, arguments: Mapping[str, Any], removed: int) -> dict[str, int]:
    """`max_length` and `min_length` without the dropped tokens: both count the prompt."""
    limits = {}
    counterparts = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
    for length_name, count_name in counterparts.items():
        length = generation_setting(model, arguments, length_name)
        if length is not None and generation_setting(model, arguments, count_name) is None:
            limits[length_name] = max(length - removed, 0)
    return limits
