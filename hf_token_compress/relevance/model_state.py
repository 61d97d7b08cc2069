"""Take a model as it is needed for explanations, and give it back exactly as it was."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def ready_for_gradients(model: Any, *, checkpointing: bool = False) -> Iterator[None]:
    """Frozen parameters and no dropout inside the `with` block, with gradients switched on.

    Args:
        model: A Transformers model.
        checkpointing: Keep the activations of one decoder layer alive at a time, and work out the
            others again in the backward pass: less memory for about a third more time.

    Raises:
        ValueError: The model has no support for gradient checkpointing.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # What modules remember of a forward too, such as Qwen2-VL the offset of positions to come.
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    # And hooks by which Transformers records hidden states, put on in the first forward.
    hooks = [
        (value, value.copy())
        for _, before in attributes
        for value in before.values()
        if isinstance(value, OrderedDict)
    ]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for module, _ in attributes:
            module.training = False
        with torch.inference_mode(False), torch.enable_grad():
            if checkpointing:
                _checkpoint_layers(model.get_decoder())
            yield
    finally:
        for module, before in attributes:
            for name in set(vars(module)) - set(before):
                del vars(module)[name]
            vars(module).update(before)
        for live, content in hooks:
            if list(live) != list(content):
                live.clear()
                live.update(content)
        for parameter in trained:
            parameter.requires_grad_(True)


def _checkpoint_layers(decoder: Any) -> None:
    """Wrap the forward of each layer of this instance, without the hooks that training needs."""
    layers = [item for item in decoder.modules() if isinstance(item, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(decoder).__name__} has no layers that support gradient checkpointing: leave "
            "checkpointing out."
        )
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
