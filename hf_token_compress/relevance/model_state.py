"""Take a model as it is needed for explanations, and give it back exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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
    modes = [(module, module.training) for module in model.modules()]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for module, _ in modes:
            module.training = False
        with torch.inference_mode(False), torch.enable_grad():
            if checkpointing:
                with _checkpointed_layers(model.get_decoder()):
                    yield
            else:
                yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _checkpointed_layers(decoder: Any) -> Iterator[None]:
    if not decoder.supports_gradient_checkpointing:
        raise ValueError(
            f"{type(decoder).__name__} does not support gradient checkpointing: call relevance "
            "without it."
        )
    before = [
        (module, dict(vars(module)))
        for module in decoder.modules()
        if hasattr(module, "gradient_checkpointing")
    ]
    # Renamed in Transformers 5.24.
    enable = getattr(decoder, "activation_checkpointing_enable", None)
    enable = enable or decoder.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
        for module, _ in before:
            if isinstance(module, GradientCheckpointingLayer):
                # A layer checks its own mode only: what is inside it stays without dropout.
                module.training = True
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
