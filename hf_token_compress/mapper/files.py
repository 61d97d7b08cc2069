"""The files of a mapper: where they come from, and how they are read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..hub import explain_failure
from ..writing import write_whole

CONFIG_FILE: str = constants.CONFIG_NAME
WEIGHTS_FILE: str = constants.SAFETENSORS_SINGLE_FILE
CARD_FILE: str = constants.REPOCARD_NAME

PARTS = ("", "image", "video")
"""Where a mapper lies in its folder or repository."""

_DIGEST_KEY = "weights_sha256"
_FLOATS = ("F64", "F32", "F16", "BF16")


class MapperNotFoundError(OSError):
    """A mapper does not exist or cannot be fetched; the message says why and what to do."""


def fetch_folder(
    source: str,
    check: Callable[[Path, str], object],
    *,
    parts: Sequence[str] = PARTS,
    revision: str | None = None,
    **options: Any,
) -> Path:
    """The folder of a mapper; of a Hub id, first every config.json is fetched, then the weights.

    Args:
        source: Folder or Hub id.
        check: Called with the folder of each config.json of a mapper and with `source`, before any
            weights are fetched; raises an error if they would be of no use.
        parts: Where mappers may lie.
        revision: Branch, tag or commit on the Hub.
        **options: Of `snapshot_download`.
    """
    if Path(source).is_dir():
        return Path(source)

    def fetch(file: str, parts: Sequence[str], revision: str | None) -> Path:
        options["allow_patterns"] = [f"{part}/{file}".lstrip("/") for part in parts]
        try:
            return Path(snapshot_download(source, revision=revision, **options))
        except Exception as error:
            reason = explain_failure("mapper", source, error, revision=revision)
            raise MapperNotFoundError(reason) from error

    folder = fetch(CONFIG_FILE, parts, revision)
    found = [part for part in parts if holds_mapper(folder / part, source)]
    for part in found:
        check(folder / part, source)
    # The folder is named after the commit, so that both files are of the same one.
    return fetch(WEIGHTS_FILE, found, folder.name) if found else folder


def holds_mapper(folder: Path, name: str) -> bool:
    """Whether a folder has a config.json, and that of a mapper; `name` is the mapper in errors."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    return {"base_model", "network"} <= set(read_settings(folder, name))


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


def read_weights(folder: Path, name: str, network: nn.Module) -> dict[str, Tensor]:
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
    if read_settings(folder, name).get(_DIGEST_KEY) not in (None, _digest(path.read_bytes())):
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


def write_files(
    folder: Path,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    card: str | None = None,
) -> None:
    """Write config.json, with the SHA-256 of the weights, model.safetensors and perhaps a card."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    content = save(tensors, metadata={"format": "pt"})
    signed = {**settings, _DIGEST_KEY: _digest(content)}
    files = {
        folder / WEIGHTS_FILE: content,
        folder / CONFIG_FILE: (json.dumps(signed, indent=2, sort_keys=True) + "\n").encode(),
    }
    if card is not None:
        files[folder / CARD_FILE] = card.encode()
    write_whole(files)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damaged(file: str, name: str, reason: object) -> str:
    return f"{file} of the mapper {name!r} is damaged ({reason}): fetch or save it again."
