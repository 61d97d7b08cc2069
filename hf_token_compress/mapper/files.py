"""The files of a mapper: where they come from, and how they are read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..hub import explain_failure

CONFIG_FILE: str = constants.CONFIG_NAME
WEIGHTS_FILE: str = constants.SAFETENSORS_SINGLE_FILE
CARD_FILE: str = constants.REPOCARD_NAME

_DIGEST_KEY = "weights_sha256"
_FLOATS = ("F64", "F32", "F16", "BF16")


class MapperNotFoundError(OSError):
    """A mapper does not exist or cannot be fetched; the message says why and what to do."""


def fetch_folder(source: str, *, revision: str | None = None, **options: Any) -> Path:
    """The folder of a mapper; a Hub id is fetched by `snapshot_download` with these options."""
    if Path(source).is_dir():
        return Path(source)
    options["allow_patterns"] = ["*.json", "*.safetensors"]
    try:
        return Path(snapshot_download(source, revision=revision, **options))
    except Exception as error:
        reason = explain_failure("mapper", source, error, revision=revision)
        raise MapperNotFoundError(reason) from error


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """The content of a mapper's config.json; `name` is the mapper in messages."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise MapperNotFoundError(f"There is no mapper in {name!r}: it has no {CONFIG_FILE}.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(_damaged(CONFIG_FILE, name, error)) from error
    if not isinstance(settings, dict):
        raise ValueError(_damaged(CONFIG_FILE, name, "not a JSON object"))
    return settings


def read_weights(
    folder: Path, settings: Mapping[str, Any], name: str, network: nn.Module
) -> dict[str, Tensor]:
    """The content of a mapper's model.safetensors, if it fits a network on the meta device."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise MapperNotFoundError(
            f"The mapper {name!r} has no {WEIGHTS_FILE}: fetch or save it again."
        )
    expected = {key: list(weight.shape) for key, weight in network.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = {key: part.get_shape() for key, part in slices.items()}
            kinds = {part.get_dtype() for part in slices.values()}
        if found != expected:
            raise ValueError(
                f"The weights of the mapper {name!r} do not fit the network in its {CONFIG_FILE}: "
                "fetch or save both again."
            )
        if not kinds <= set(_FLOATS):
            raise ValueError(
                f"The weights of the mapper {name!r} are not floating-point numbers "
                f"({', '.join(sorted(kinds - set(_FLOATS)))}): fetch or save it again."
            )
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(_damaged(WEIGHTS_FILE, name, error)) from error
    if settings.get(_DIGEST_KEY) not in (None, _digest(path)):
        raise ValueError(
            f"{WEIGHTS_FILE} of the mapper {name!r} does not have the SHA-256 in its "
            f"{CONFIG_FILE}: fetch or save both again."
        )
    if broken := [key for key, weight in weights.items() if not weight.isfinite().all()]:
        raise ValueError(
            f"The weights of the mapper {name!r} hold NaN or infinite values in {broken[0]}: train "
            "it again with a lower learning rate."
        )
    return weights


def write_files(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write config.json, with the SHA-256 of the weights, and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    content = {**settings, _DIGEST_KEY: _digest(folder / WEIGHTS_FILE)}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damaged(file: str, name: str, reason: object) -> str:
    return f"{file} of the mapper {name!r} is damaged ({reason}): fetch or save it again."
