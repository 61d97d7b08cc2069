"""The state of a training run between two epochs, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..hub import first_line
from ..writing import write_whole
from .options import current_names


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next epoch depends on.

    Attributes:
        weights: Weights of the network by name.
        best: The weights with the lowest validation loss.
        optimizer: Adam's tensors by name, for the index of each weight.
        history: Every epoch so far, in JSON types.
    """

    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    history: list[dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint; readers find the whole file or none."""
    parts = {"weights": checkpoint.weights, "best": checkpoint.best}
    parts |= {f"optimizer/{number}": state for number, state in checkpoint.optimizer.items()}
    whole = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    metadata = {
        "history": json.dumps(checkpoint.history),
        "settings": json.dumps(settings, sort_keys=True),
    }
    write_whole({path: save(whole, metadata)})


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> Checkpoint | None:
    """Read a checkpoint; None if there is no file.

    Raises:
        ValueError: The file is damaged, or belongs to a run with other settings or data.
    """
    if not path.is_file():
        return None
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            for name in file.keys():  # noqa: SIM118 - no mapping
                part, _, rest = name.partition("/")
                parts[part][rest] = file.get_tensor(name)
        saved = json.loads(metadata["settings"], object_hook=current_names)
        history = json.loads(metadata["history"])
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, _, rest = name.partition("/")
            optimizer.setdefault(int(number), {})[rest] = value
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    if saved != json.loads(json.dumps(settings), object_hook=current_names):
        raise ValueError(
            f"The folder {str(path.parent)!r} holds a run with other options or other data: choose "
            "another folder, or delete this one."
        )
    return Checkpoint(parts["weights"], parts["best"], optimizer, history)


def damaged(path: Path, error: BaseException) -> ValueError:
    """What to raise for a damaged checkpoint."""
    return ValueError(
        f"The checkpoint {str(path)!r} is damaged ({first_line(error).rstrip('.')}): delete it and "
        "train again, which starts from the first epoch."
    )
