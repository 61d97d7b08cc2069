"""Parameters that training must not change."""

from __future__ import annotations

from torch import Tensor


def freeze_logit_shift(*parameters: Tensor | None) -> None:
    """Freeze parameters that add one number to all logits of a prompt.

    The softmax over the prompt's visual tokens removes that number, so the gradients of these
    parameters are only rounding errors, and Adam would turn them into steps of normal size.
    """
    for parameter in parameters:
        if parameter is not None:
            parameter.requires_grad_(False)
