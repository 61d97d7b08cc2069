"""Labels of a batch to train on: check them, and rewrite them for the tokens that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..notices import warn
from ..rewrite import gather_positions
from .inputs import PromptLayout, check_shape

IGNORED = -100
"""The label of tokens that are not learned."""


def computes_loss(inputs: Mapping[str, Any]) -> bool:
    """Whether somebody pairs the logits of this forward with labels of the caller's width.

    Trainers that compute the loss themselves take the labels out, but leave their number.
    """
    return any(inputs.get(name) is not None for name in ("labels", "num_items_in_batch"))


def answer_tokens(inputs: Mapping[str, Any], visual_mask: Tensor) -> Tensor | None:
    """Tokens of the answer, bool [B, S]; None if the inputs do not tell.

    They are those that have labels. Without labels, who asks for the logits of the last n + 1
    columns scores an answer in the last n of them, unless there are visual tokens (bool [B, S]).
    """
    if (labels := inputs.get("labels")) is not None:
        return labels != IGNORED
    count = (inputs.get("logits_to_keep") or 1) - 1
    if count < 1:
        return None
    answer = torch.zeros_like(visual_mask)
    answer[:, -count:] = True
    return answer & ~(answer & visual_mask).any(dim=1, keepdim=True)


def check_labels(inputs: Mapping[str, Any], instruction_mask: Tensor | None) -> None:
    """Check labels as far as `input_ids` tell.

    Raises:
        TypeError, ValueError: Labels do not have the shape of `input_ids`, or come with
            `logits_to_keep`.
    """
    input_ids = inputs.get("input_ids")
    if not computes_loss(inputs) or not isinstance(input_ids, Tensor):
        return
    for name in ("labels", "shift_labels"):
        if inputs.get(name) is not None:
            check_shape(name, inputs[name], input_ids)
    if inputs.get("labels") is None:
        if instruction_mask is None:
            warn(
                "The trainer takes the labels out before it calls the model (for label smoothing "
                "or its own loss), so the answer counts as instruction: add an instruction_mask "
                "that leaves the answer out to every batch."
            )
    elif not isinstance(inputs.get("logits_to_keep"), Tensor) and inputs.get("logits_to_keep"):
        raise ValueError(
            "With labels, token compression needs the logits of every token: leave logits_to_keep "
            "out."
        )


def check_unlabelled_visuals(labels: Tensor | None, layout: PromptLayout) -> None:
    """Check that no visual token is learned.

    Raises:
        ValueError: A visual token has a label.
    """
    if labels is None:
        return
    visual_labels = labels[layout.on_host.visual_mask.to(labels.device)]
    if (visual_labels != IGNORED).any():
        raise ValueError(
            f"labels must be {IGNORED} on visual tokens, because those that are dropped cannot be "
            f"learned: set the labels of image and video placeholders to {IGNORED}."
        )


def short_labels(inputs: Mapping[str, Any], index: Tensor) -> dict[str, Tensor]:
    """The labels among the inputs for the tokens at `index`, int64 [B, K], -1 for padding."""
    short = {}
    if (labels := inputs.get("labels")) is not None:
        # Nothing predicts the first column, but padding may stand before it now.
        short["labels"] = gather_positions(
            pad(labels[:, 1:], (1, 0), value=IGNORED), index, IGNORED
        )
    if (following := inputs.get("shift_labels")) is not None:
        # The next token may follow on another one now.
        own = gather_positions(pad(following, (1, -1), value=IGNORED), index, IGNORED)
        short["shift_labels"] = pad(own, (-1, 1), value=IGNORED)  # [B, K]
    return short
