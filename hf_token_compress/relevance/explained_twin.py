"""The twin of a model that is explained, so that the model itself is never touched."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ..compression.twin import make_twin


@contextmanager
def explained_twin(model: Any, *, checkpointing: bool = False) -> Iterator[Any]:
    """A twin in evaluation mode with frozen parameters; gradients are enabled inside `with`.

    With `checkpointing`, only one decoder layer at a time keeps its activations, and the backward
    pass recomputes the others: less memory for about a third more time. The same holds for weights
    that are offloaded: without it, the backward pass keeps those of all layers.
    """
    twin = make_twin(model, frozen=True)
    if checkpointing:
        checkpoint_layers(twin.module.get_decoder())
    with twin.running(), torch.inference_mode(False), torch.enable_grad():
        yield twin.module


def checkpoint_layers(decoder: Any) -> None:
    """Checkpoint each layer of a twin's decoder, without the hooks that training needs.

    Raises:
        ValueError: Its layers do not support it.
    """
    layers = [item for item in decoder.modules() if isinstance(item, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(decoder).__name__} has no layers that support gradient checkpointing: pass "
            "checkpointing=False."
        )
    for layer in layers:
        # Make no circle, which would keep weights.
        own = vars(layer).get("forward")
        layer.forward = functools.partial(_checkpointed, weakref.ref(layer), own)


def _checkpointed(
    reference: weakref.ref[nn.Module], own: Callable[..., Any] | None, *args: Any, **kwargs: Any
) -> Any:
    """Checkpoint a layer that has a forward of its own, or None for that of its class."""
    layer: Any = reference()
    forward = own or type(layer).forward.__get__(layer)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
