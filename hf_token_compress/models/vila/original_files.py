"""Find and read the files of a published VILA1.5 checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARTS = ("llm", "vision_tower", "mm_projector")

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
# Weights are only read from safetensors: a pickle could run code.
_NEEDED_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")


def hub_options(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a `from_pretrained` that say where to find files."""
    return {name: keywords[name] for name in _HUB_OPTIONS if keywords.get(name) is not None}


def find_original_folder(location: str | Path, *, subfolder: str = "", **options: Any) -> Path:
    """The folder of a published checkpoint; a Hub id is downloaded.

    Raises:
        OSError: The Hub cannot be reached, or the checkpoint lacks one of its folders.
    """
    folder = Path(location)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        patterns = [f"{subfolder}/{name}" if subfolder else name for name in _NEEDED_FILES]
        folder = Path(snapshot_download(str(location), allow_patterns=patterns, **options))
    folder = folder / subfolder
    missing = [part for part in PARTS if not (folder / part / "config.json").is_file()]
    if missing:
        names = " and ".join(f"{part}/config.json" for part in missing)
        raise OSError(
            f"The VILA1.5 checkpoint {str(location)!r} lacks {names}: download it again with all "
            f"its folders {', '.join(PARTS)}."
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if the file does not exist.

    Raises:
        OSError: The file does not hold a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise OSError(f"{path} is not a JSON object: download it again, as it may be cut off.")
    return content


def token_ids(folder: Path) -> dict[str, int]:
    """Token ids in the tokenizer's JSON files, which do not list those of a SentencePiece model."""
    llm = folder / "llm"
    whole = read_json(llm / "tokenizer.json")
    vocabulary = whole.get("model", {}).get("vocab", {})
    ids: dict[str, int] = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    ids.update({token["content"]: token["id"] for token in whole.get("added_tokens", [])})
    ids.update(read_json(llm / "added_tokens.json"))
    added = read_json(llm / "tokenizer_config.json").get("added_tokens_decoder", {})
    ids.update({token["content"]: int(number) for number, token in added.items()})
    return ids
