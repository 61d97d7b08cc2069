"""Parameters that FSDP (`fully_shard`) gathers for the forward of their module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def with_gathered_parameters(model: Any, method: str) -> Callable[..., Any]:
    """A method of the model that gathers its parameters, and frees them, as its forward does."""
    if torch.distributed.is_available():
        from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

        if issubclass(type(model), FSDPModule):
            # It puts the method on the instance, where other calls would find it.
            register_fsdp_forward_method(model, method)
            return vars(model).pop(method)
    return getattr(model, method)
