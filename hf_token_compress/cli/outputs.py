"""Where a command writes its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import CommandError


def make_folder(path: Path) -> None:
    """Make a folder and its parents, where they are missing.

    Raises:
        CommandError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"The folder {str(path)!r} cannot be made: {error.strerror}.") from error


def numbered_paths(path: Path, count: int) -> list[Path]:
    """Paths of `count` images to write: `out.png`, `out-2.png`, `out-3.png` and so on.

    Raises:
        CommandError: Images cannot be written there.
    """
    if path.suffix.lower() not in Image.registered_extensions():
        raise CommandError(
            f"{str(path)!r} has no image extension: use, for instance, {path.stem or 'out'}.png.",
            exit_code=2,
        )
    if not path.parent.is_dir():
        raise CommandError(
            f"There is no folder {str(path.parent)!r} to write {path.name} to.", exit_code=2
        )
    more = (path.with_stem(f"{path.stem}-{number}") for number in range(2, count + 1))
    return [path, *more]


def check_output(path: Path | None) -> None:
    """Fail before the work and not after it.

    Raises:
        CommandError: The file cannot be written: it is a folder, or its folder does not exist.
    """
    if path is None:
        return
    if path.is_dir():
        raise CommandError(
            f"{str(path)!r} is a folder: name a file to write the JSON object to.", exit_code=2
        )
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder for {str(path)!r}: make it first.", exit_code=2)


@dataclass(frozen=True)
class Outputs:
    """What is printed, written and drawn."""

    markdown: bool
    as_json: bool
    output: Path | None
    plot: Path | None

    def check(self) -> None:
        """Fail before the work and not after it.

        Raises:
            CommandError: Options exclude each other, or a file cannot be written.
            ImportError: matplotlib is not installed, but needed.
        """
        if self.markdown and self.as_json:
            raise CommandError("--markdown and --json exclude each other.", exit_code=2)
        check_output(self.output)
        if self.plot is not None:
            from ..viz.figures import figure_class

            numbered_paths(self.plot, 1)
            figure_class()


def check_apart(files: Mapping[str, Path | None]) -> None:
    """Refuse to write two outputs to one file, or one over the data.

    Args:
        files: What each option names.

    Raises:
        CommandError: Two options name the same file.
    """
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        first = seen.setdefault(path.resolve(), option)
        if first != option:
            raise CommandError(
                f"{first} and {option} name the same file, {str(path)!r}: choose another for "
                f"{option}.",
                exit_code=2,
            )


def write_json(content: Mapping[str, Any], path: Path | None) -> None:
    """Write an object to the file of `--output`, if there is one."""
    if path is not None:
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
