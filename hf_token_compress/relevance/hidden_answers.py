"""Whether a replayed answer is hidden from the tokens before it, as it is when it is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..compression.mask_rules import SeenMask
from ..compression.probe import Probe


def answers_are_hidden(model: Any, inputs: Mapping[str, Any], first: Tensor) -> bool:
    """Whether no token of a replay sees a later one of its answer.

    Args:
        model: The model.
        inputs: Keyword arguments of its forward for prompts with their answers, S tokens each.
        first: int64 [B], the position of each answer's first token.
    """
    try:
        with torch.no_grad():
            call = Probe(model, inputs).attention()
    except ValueError:
        # Attention that has no mask to look at is causal.
        return True
    present = inputs["attention_mask"].bool().to(call.key.device)  # [B, S]
    return mask_hides_answers(call.mask, first.to(present.device), present)


def mask_hides_answers(mask: SeenMask, first: Tensor, present: Tensor) -> bool:
    """The same for a mask; `present`, bool [B, S], is False on padding."""
    is_given = all(rule.made is not mask.mask for rule in mask.rules)
    is_plain = mask.mask is None if is_given else mask.is_causal(mask.sliding_window)
    if is_plain:
        # SDPA gets no mask then, but asks the layer.
        return mask.causal
    # Look at the keys from the first answer on: [B, S, K].
    positions = torch.arange(present.shape[1], device=present.device)  # [S]
    sample = torch.arange(len(present), device=present.device)[:, None, None]  # [B, 1, 1]
    query, key = positions[:, None], positions[int(first.min()) :]  # [S, 1], [K]
    later = (key > query) & (key >= first[:, None, None]) & present[:, None, key]  # [B, S, K]
    if is_given:
        seen = mask.mask[..., key]  # type: ignore[index]  # [B or 1, heads or 1, S, K]
        if seen.is_floating_point():
            seen = seen > torch.finfo(seen.dtype).min / 2
        return not (seen & later[:, None]).any()
    head = torch.zeros((), dtype=torch.long, device=present.device)
    return not any((rule.function(sample, head, query, key) & later).any() for rule in mask.rules)
