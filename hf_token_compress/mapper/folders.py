"""Where mappers lie: a folder, a repository on the Hub, or beside a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import constants, errors, snapshot_download

CONFIG_FILE: str = constants.CONFIG_NAME
WEIGHTS_FILE: str = constants.SAFETENSORS_SINGLE_FILE
CARD_FILE: str = constants.REPOCARD_NAME


class MapperNotFoundError(OSError):
    """There is no such mapper, or it cannot be fetched; the message says why and what to do."""


_PATTERNS = ["*.json", "*.safetensors"]


def fetch_folder(
    source: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of a mapper; downloads it where `source` is a Hub id.

    Args:
        source: Folder or Hub id.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Cache of the Hub client.
        force_download: Fetch again what is in the cache.
        local_files_only: Do not ask the Hub.
        token: Of the Hub, for private mappers.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(
            snapshot_download(
                source,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=_PATTERNS,
            )
        )
    except Exception as error:
        raise MapperNotFoundError(_what_went_wrong(source, revision, error)) from error


def read_json(path: Path, mapper: str) -> dict[str, Any]:
    """The JSON object in a mapper's file.

    Args:
        path: The file.
        mapper: What the user calls the mapper.

    Raises:
        MapperNotFoundError: There is no such file.
        ValueError: It is not a JSON object.
    """
    if not path.is_file():
        raise MapperNotFoundError(f"There is no mapper in {mapper!r}: it has no {path.name}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path.name} of the mapper {mapper!r} is damaged ({error}): fetch or save it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} of the mapper {mapper!r} is no JSON object.")
    return content


def _what_went_wrong(source: str, revision: str | None, error: Exception) -> str:
    """One sentence on a failed download."""
    if isinstance(error, errors.HFValidationError):
        return f"There is no mapper {source!r}: it is no folder here, and no Hub id either."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"The mapper {source!r} has no revision {revision!r} on the Hub."
    if isinstance(error, errors.GatedRepoError):
        return f"The mapper {source!r} is gated: ask for access on its page, then log in."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no mapper {source!r}: it is no folder here, and the Hub has none of that "
            "name that you may read (log in with `hf auth login` if it is private)."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        at = "" if revision is None else f" at revision {revision!r}"
        return (
            f"The mapper {source!r} is no folder here and not in the cache{at}, and the Hub cannot "
            "be reached."
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"The mapper {source!r} could not be fetched from the Hub ({reason}): try again."
