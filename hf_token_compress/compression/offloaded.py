"""Weights that Accelerate keeps elsewhere while a module does not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def own_weights(model: Any) -> Iterator[None]:
    """Load what a model and its base model hold themselves, outside their parts.

    Accelerate does so in `forward` only, but `get_image_features` may need it: LLaVA-OneVision's
    newline is such a weight. Each part loads its own weights when it runs.
    """
    with ExitStack() as stack:
        for module in {id(own): own for own in (model, model.base_model)}.values():
            stack.enter_context(_loaded(module))
        yield


@contextmanager
def _loaded(module: nn.Module) -> Iterator[None]:
    hook: Any = getattr(module, "_hf_hook", None)
    # Inside a forward of the module, its weights are there already.
    away = any(own is not None and own.is_meta for own in module._parameters.values())
    if hook is None or not away:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)
