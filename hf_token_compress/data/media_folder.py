"""Find the images and videos that data names."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path, PurePath
from typing import Literal

from PIL import Image

_VIDEOS = (".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


class MediaFolder:
    """The folder that paths in data are relative to.

    Args:
        folder: The folder.
        searched: Whether names may lack their extension and the folders that they are in.

    Raises:
        FileNotFoundError: A folder to search is not there.
    """

    def __init__(self, folder: str | Path, *, searched: bool = False) -> None:
        self.folder, self._searched = Path(folder), searched
        if searched and not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {str(folder)!r}.")

    def path(self, name: str, modality: Literal["image", "video"]) -> Path:
        """Where an image or a video should be; it is looked for in a folder to search only.

        Raises:
            ValueError: Several files have that name.
        """
        path = self.folder / name
        if not self._searched or path.exists():
            return path
        found = [item for item in self._named(PurePath(name)) if _shows(item, modality)]
        if len(found) > 1:
            raise ValueError(
                f"the {modality} {name!r} may be {str(found[0])!r} or {str(found[1])!r}"
            )
        return found[0] if found else path

    def _named(self, name: PurePath) -> list[Path]:
        *folders, last = name.parts
        return [
            path
            for path in self._paths.get(last, [])
            if list(path.relative_to(self.folder).parts[:-1])[-len(folders) :] == folders
            or not folders
        ]

    @cached_property
    def _paths(self) -> dict[str, list[Path]]:
        """Everything in the folder, under its name and its name without extension."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            for name in {path.name, path.stem}:
                found.setdefault(name, []).append(path)
        return found


def _shows(path: Path, modality: str) -> bool:
    suffix = path.suffix.lower()
    if modality == "image":
        return suffix in Image.registered_extensions() and path.is_file()
    return suffix in _VIDEOS or path.is_dir()
