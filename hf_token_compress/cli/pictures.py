"""Read the images that a command is given, and name those that it writes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from ..hub import first_line
from .errors import CommandError


def read_picture(path: Path) -> Image.Image:
    """The image in a file, RGB, upright as its EXIF tag says.

    Raises:
        CommandError: There is no such file, or it is no readable image.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise CommandError(f"There is no image file {str(path)!r}.") from None
    except IsADirectoryError:
        raise CommandError(f"{str(path)!r} is a folder, not an image file.") from None
    except UnidentifiedImageError:
        raise CommandError(f"{str(path)!r} is not a picture that can be read.") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for some broken PNG files.
        raise CommandError(f"The image {str(path)!r} cannot be read: {first_line(error)}") from None


def read_frames(path: Path) -> list[Image.Image]:
    """The frames of a video, RGB: of an animated image, or the images in a folder by name.

    Raises:
        CommandError: There are no frames there, or they cannot be read.
    """
    if path.is_dir():
        known = Image.registered_extensions()
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in known]
        if not files:
            raise CommandError(f"The folder {str(path)!r} has no pictures to take for frames.")
        return [read_picture(file) for file in files]
    first = read_picture(path)
    with Image.open(path) as animation:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    return frames if len(frames) > 1 else [first]


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, where they are missing.

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
            f"{str(path)!r} does not end as a picture's name does: name it for instance "
            f"{path.stem or 'out'}.png.",
            exit_code=2,
        )
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {str(path.parent)!r} to write {path.name} to.")
    more = (path.with_stem(f"{path.stem}-{number}") for number in range(2, count + 1))
    return [path, *more]
