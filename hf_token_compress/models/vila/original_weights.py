"""The weights of a published VILA1.5 checkpoint under the names of the Transformers classes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .names import PROJECTOR_TYPE
from .original_files import PARTS, read_json

_WEIGHTS = "model.safetensors"

# For each part (pattern, replacement); the first match counts, and "" leaves the weight out.
_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "llm": (
        # Old checkpoints store values that the configuration determines.
        (r".*\.rotary_emb\.inv_freq$", ""),
        (r"^model\.", "model.language_model."),
        (r"^lm_head\.", "lm_head."),
    ),
    "vision_tower": (
        # The features do not use the pooling head.
        (r"^vision_model\.head\..*", ""),
        (r".*\.embeddings\.position_ids$", ""),
        (r"^vision_model\.", "model.vision_tower."),
    ),
    "mm_projector": (
        (r"^layers\.1\.", "model.multi_modal_projector.norm."),
        (r"^layers\.2\.", "model.multi_modal_projector.linear_1."),
        (r"^layers\.4\.", "model.multi_modal_projector.linear_2."),
    ),
}


def read_weights(model_class: Any, config: Any, folder: Path) -> dict[str, Tensor]:
    """All weights of a model class, checked against its configuration.

    They stay on disk until they are used. The published vocabulary lacks the placeholders, so their
    embeddings are zero.

    Raises:
        OSError: A file is missing or damaged.
        ValueError: Weights are missing or left over, or do not have the shape in config.json.
    """
    projector_type = read_json(folder / "mm_projector" / "config.json").get("mm_projector_type")
    if projector_type not in (None, PROJECTOR_TYPE):
        config.projector_type = projector_type
    with torch.device("meta"):
        expected = model_class(copy.deepcopy(config)).state_dict()
    whole_model = "lm_head.weight" in expected
    weights = {}
    for part in PARTS:
        for name, tensor in _read_part(folder / part).items():
            target = _target_name(part, name, whole_model)
            if target is None:
                continue
            if target.endswith(("embed_tokens.weight", "lm_head.weight")):
                added = len(config.unpredicted_token_ids)
                tensor = nn.functional.pad(tensor, (0, 0, 0, added))  # [vocabulary + added, D]
            weights[target] = tensor
    _check(weights, expected, tied=bool(config.tie_word_embeddings))
    return weights


def _target_name(part: str, name: str, whole_model: bool) -> str | None:
    for pattern, replacement in _NAMES[part]:
        if re.match(pattern, name):
            target = re.sub(pattern, replacement, name)
            if whole_model:
                return target or None
            return target.removeprefix("model.") if target.startswith("model.") else None
    return name


def _read_part(folder: Path) -> dict[str, Tensor]:
    index = read_json(folder / f"{_WEIGHTS}.index.json")
    files = sorted(set(index["weight_map"].values())) if index else [_WEIGHTS]
    weights = {}
    for file in files:
        path = folder / file
        if not path.is_file():
            raise OSError(
                f"The VILA1.5 checkpoint lacks {folder.name}/{file}: download it again, with its "
                "weights as safetensors files."
            )
        try:
            weights.update(load_file(path))
        except SafetensorError as error:
            raise OSError(
                f"{folder.name}/{file} of the VILA1.5 checkpoint is damaged or cut off ({error}): "
                "download it again."
            ) from error
    return weights


def _check(weights: dict[str, Tensor], expected: dict[str, Tensor], *, tied: bool) -> None:
    missing = sorted(expected.keys() - weights.keys() - ({"lm_head.weight"} if tied else set()))
    unknown = sorted(weights.keys() - expected.keys())
    for names, what in ((missing, "missing from"), (unknown, "unexpected in")):
        if names:
            raise ValueError(
                f"{len(names)} weights are {what} the VILA1.5 checkpoint, such as {names[0]}: its "
                "folders do not belong together, or a shard is missing."
            )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"The weight {name} of the VILA1.5 checkpoint has shape {list(tensor.shape)}, but "
                f"its config.json asks for {list(expected[name].shape)}: its folders do not belong "
                "together."
            )
