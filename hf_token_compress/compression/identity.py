"""Tell which model a loaded one is, so that a mapper of another is not put on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..mapper import ModelIdentity, layer_fingerprint
from ..models.registry import model_family


def identify(model: Any, name: str | None = None) -> ModelIdentity:
    """Name, sizes and fingerprint of a loaded model.

    Args:
        model: A Transformers model of a supported family, compressed or not.
        name: Hub id to go by; by default where the model was loaded from (of a folder, its name).

    Raises:
        ValueError: The family is not supported.
    """
    text = model.config.get_text_config()
    origin = str(name or model.config._name_or_path or model.config.model_type)
    weight = model.get_input_embeddings().weight
    family = model_family(getattr(model, "stock_class", type(model)))
    # Weights on the meta device are yet to be loaded.
    fingerprint = () if weight.is_meta else layer_fingerprint(family.scoring_layer(model), weight)
    return ModelIdentity(
        name=_folder_name(origin) if Path(origin).exists() else origin,
        revision=getattr(model.config, "_commit_hash", None),
        model_type=model.config.model_type,
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        fingerprint=fingerprint,
    )


def _folder_name(folder: str) -> str:
    # "." and ".." have none of their own, and the root has none at all.
    return Path(os.path.abspath(folder)).name or folder
