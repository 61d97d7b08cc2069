"""From a prompt and a keep mask to a shorter prompt: pure tensor functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PaddingSide = Literal["left", "right"]


def kept_positions(keep: Tensor, padding_side: PaddingSide) -> Tensor:
    """Positions of the kept tokens, padded to the longest sample; the host waits to count them.

    Args:
        keep: bool [B, S], True on tokens that stay (never on padding).
        padding_side: Side on which shorter samples are padded; generation needs "left".

    Returns:
        int64 [B, K], K the most tokens that a sample keeps; -1 marks padding.
    """
    longest = int(keep.sum(dim=1).max()) if len(keep) else 0
    index = ordered_positions(keep, padding_side, longest)
    return index.masked_fill(~keep.gather(1, index), -1)


def ordered_positions(keep: Tensor, padding_side: PaddingSide, longest: int) -> Tensor:
    """As `kept_positions`, with positions of dropped tokens as padding.

    Args:
        keep: bool [B, S], True on tokens that stay.
        padding_side: Side on which shorter samples are padded.
        longest: K, at least the most tokens that a sample keeps.
    """
    length = keep.shape[1]
    # A stable sort leaves kept tokens in order. Not every device sorts bool.
    is_right = padding_side == "right"
    order = keep.view(torch.int8).sort(dim=1, stable=True, descending=is_right).indices  # [B, S]
    return order[:, :longest] if is_right else order[:, length - longest :]


def gather_positions(tensor: Tensor, index: Tensor, fill: int | float | bool) -> Tensor:
    """Take the indexed positions of every sample.

    Args:
        tensor: [..., B, S], such as ids [B, S] or position ids [A, B, S].
        index: int64 [B, K], -1 for padding.
        fill: Value at padding.

    Returns:
        [..., B, K].
    """
    expanded = index.clamp(min=0).expand(*tensor.shape[:-1], index.shape[1])  # [..., B, K]
    return tensor.gather(-1, expanded).masked_fill(index < 0, fill)


def compact_position_ids(position_ids: Tensor, shortened: Tensor, attention_mask: Tensor) -> Tensor:
    """Number the tokens of shortened samples 0, 1, 2, … on every axis.

    Args:
        position_ids: int64 [..., B, K] of the shorter prompt.
        shortened: bool [B], True on samples that lost visual tokens.
        attention_mask: bool [B, K] of the shorter prompt.

    Returns:
        int64 [..., B, K].
    """
    compact = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # [B, K]
    return torch.where(shortened[:, None], compact, position_ids)


def restore_prompt(sequences: Tensor, prompt_ids: Tensor, prompt_length: int) -> Tensor:
    """Put the caller's prompt before the tokens generated from a shorter one.

    Args:
        sequences: int64 [B * n, K + new], generated from the rewritten prompt.
        prompt_ids: int64 [B, S], the caller's prompt.
        prompt_length: K, length of the rewritten prompt.

    Returns:
        int64 [B * n, S + new].
    """
    copies = sequences.shape[0] // prompt_ids.shape[0]
    prompts = prompt_ids.to(sequences.device).repeat_interleave(copies, dim=0)  # [B * n, S]
    return torch.cat([prompts, sequences[:, prompt_length:]], dim=1)
