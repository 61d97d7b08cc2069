"""Scoring in the dtype of the model, whatever autocast and default device the caller set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def without_autocast() -> Iterator[None]:
    """Switch autocast off inside the `with` block, on the CPU and on the accelerator."""
    accelerator = torch.accelerator.current_accelerator()
    kinds = {"cpu", "cpu" if accelerator is None else accelerator.type}
    with ExitStack() as stack:
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def host_by_default() -> Iterator[None]:
    """Inside the `with` block, tensors are made on the CPU unless their device is named.

    `torch.set_default_device` would make the host's own tensors elsewhere.
    """
    host = torch.device("cpu")
    if torch.get_default_device() == host:
        yield  # a block of `host` would only cost time
        return
    with host:
        yield
