"""Prepare a model for explanations, and restore it exactly afterwards."""

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
    """Freeze parameters, turn off dropout and enable gradients inside the `with` block.

    With `checkpointing`, only one decoder layer at a time keeps its activations, and the backward
    pass recomputes the others: less memory for about a third more time.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Also restore per-module caches such as Qwen2-VL's `rope_deltas`.
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    # Also restore the hooks that Transformers adds in the first forward to record hidden states.
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
    """Checkpoint each layer of this instance, without the hooks that training needs."""
    layers = [item for item in decoder.modules() if isinstance(item, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(decoder).__name__} has no layers that support gradient checkpointing: pass "
            "checkpointing=False."
        )
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
