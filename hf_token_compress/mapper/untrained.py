"""Parameters that training has no reason to move."""

from __future__ import annotations

from torch import Tensor


def leave_untrained(*parameters: Tensor | None) -> None:
    """Keep parameters that add the same to all logits of a prompt as they are.

    The softmax over the prompt's visual tokens takes away what they add, so that their gradient is
    rounding alone. Adam would make steps of full length of it, other ones with another number of
    processes.
    """
    for parameter in parameters:
        if parameter is not None:
            parameter.requires_grad_(False)
