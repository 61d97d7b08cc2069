"""Modules in evaluation mode for a while, each given back in the mode that it was in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Switch off dropout, and all else that is for training only, inside the `with` block.

    Args:
        modules: The modules; those inside them are switched too.
    """
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
