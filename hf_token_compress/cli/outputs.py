"""Where a command writes its images."""

from __future__ import annotations

from pathlib import Path

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
            f"{str(path)!r} does not end as an image's name does: name it for instance "
            f"{path.stem or 'out'}.png.",
            exit_code=2,
        )
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {str(path.parent)!r} to write {path.name} to.")
    more = (path.with_stem(f"{path.stem}-{number}") for number in range(2, count + 1))
    return [path, *more]
