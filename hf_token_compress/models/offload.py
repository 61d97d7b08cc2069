"""Parameters that Accelerate keeps elsewhere between the forwards of their module."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OFFLOAD_LOCK = threading.RLock()
"""Held while offloaded weights are loaded: Accelerate's hooks remember one forward at a time."""


@contextmanager
def own_parameters_loaded(module: Any) -> Iterator[None]:
    """Load the offloaded parameters of the module itself, for calls other than its forward.

    Its submodules load theirs when they are called.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is None or not any(own.is_meta for own in module.parameters(recurse=False)):
        yield
        return
    with OFFLOAD_LOCK:
        hook.pre_forward(module)
        try:
            yield
        finally:
            hook.post_forward(module, None)
