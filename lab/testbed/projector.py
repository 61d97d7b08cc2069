"""Projector and newline: the only parts of the testbed that are trained from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionMultiModalProjector,
)

_PREFIX = "multi_modal_projector."
_NEWLINE = "image_newline"


def untrained_projector(config: Any, seed: int = 0) -> dict[str, Tensor]:
    """Initial weights, float32, by their names in `LlavaOnevisionModel`.

    Args:
        config: The `LlavaOnevisionConfig`.
        seed: Seed of the weights; torch's global generator does not change.
    """
    width = config.text_config.hidden_size
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        projector = LlavaOnevisionMultiModalProjector(config).float()
        newline = torch.randn(width) * width**-0.5
    weights = {_PREFIX + name: weight for name, weight in projector.state_dict().items()}
    return {**weights, _NEWLINE: newline}


def read_projector(file: str | Path) -> dict[str, Tensor]:
    """Read a file written by `save_projector`.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return load_file(file)


def save_projector(model: Any, file: str | Path) -> None:
    """Write projector and newline of a `LlavaOnevisionForConditionalGeneration` in bfloat16."""
    weights = {
        name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.model.state_dict().items()
        if name.startswith(_PREFIX) or name == _NEWLINE
    }
    save_file(weights, file, metadata={"format": "pt"})
