"""Write the trained weights for `load_testbed`: safetensors, bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from ...tiny.loop import averaged_state
from .language import lora_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_LANGUAGE_MODEL = "model.language_model."
_MODEL = "model."
_PROJECTOR = "multi_modal_projector."
_NEWLINE = "image_newline"


def export(checkpoint: Path, folder: Path) -> None:
    """Write the adapter and the projector from a checkpoint of the language model's training.

    Args:
        checkpoint: The checkpoint; its averaged weights are used.
        folder: Folder for `adapter/` and `projector.safetensors`.
    """
    state = {name.replace("/", "."): value for name, value in averaged_state(checkpoint).items()}
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    config = lora_config()
    config.inference_mode = True
    config.save_pretrained(adapter)
    save_file(adapter_tensors(state), adapter / "adapter_model.safetensors", {"format": "pt"})
    save_file(projector_tensors(state), folder / "projector.safetensors", {"format": "pt"})
    for file in (*folder.glob("*.safetensors"), *adapter.iterdir()):
        file.chmod(0o644)


def adapter_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names for a `LlamaForCausalLM`."""
    return {
        "base_model.model.model."
        + name.removeprefix(_LANGUAGE_MODEL).replace(".default.", "."): _stored(value)
        for name, value in state.items()
        if "lora_" in name
    }


def projector_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Projector and newline by their names in a `LlavaOnevisionModel`."""
    below = {name.removeprefix(_MODEL): value for name, value in state.items()}
    kept = (_PROJECTOR, _NEWLINE)
    return {name: _stored(value) for name, value in below.items() if name.startswith(kept)}


def _stored(value: Tensor) -> Tensor:
    return value.detach().cpu().to(torch.bfloat16).contiguous()
