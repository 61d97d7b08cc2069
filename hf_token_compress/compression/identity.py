"""Identify a loaded model, so that no mapper of another model is used with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..mapper import ModelIdentity
from ..mapper.identity import fingerprint_input, layer_fingerprint
from ..models.registry import model_family
from .precision import without_autocast
from .probe import probe_decoder


def identify(model: Any, name: str | None = None) -> ModelIdentity:
    """Name, sizes and fingerprint of a loaded model.

    Args:
        model: A Transformers model of a supported family, compressed or not.
        name: Hub id; by default where the model was loaded from, or the folder's name.

    Raises:
        ValueError: The family is not supported.
    """
    text = model.config.get_text_config()
    origin = str(name or model.config._name_or_path or model.config.model_type)
    if Path(origin).exists():
        # "." and ".." need the full path to have a name, and the root has none.
        origin = Path(os.path.abspath(origin)).name or origin
    weight = model.get_input_embeddings().weight
    model_family(getattr(model, "stock_class", type(model)))
    # Weights on the meta device are not loaded yet.
    fingerprint = () if weight.is_meta else _fingerprint(model, weight)
    return ModelIdentity(
        name=origin,
        revision=getattr(model.config, "_commit_hash", None),
        model_type=model.config.model_type,
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        fingerprint=fingerprint,
    )


@torch.no_grad()
@without_autocast()
def _fingerprint(model: Any, like: Tensor) -> tuple[float, ...]:
    """The fingerprint of layer 0, in the dtype and on the device of `like`, [..., D]."""
    hidden = fingerprint_input(like.shape[-1]).to(like)
    query = probe_decoder(model, hidden.view(1, 1, -1)).query  # [1, heads, 1, head_dim]
    return layer_fingerprint(query.flatten())
