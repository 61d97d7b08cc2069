"""The question that `run` and `explain` ask about the user's images and videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..options import check_options
from .errors import CommandError
from .pictures import read_picture
from .videos import read_video

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class QuestionOptions:
    """A question, and what it is about."""

    prompt: str = field(metadata={"help": "The question."})
    image: tuple[Path, ...] = field(default=(), metadata={"help": "An image.", "metavar": "FILE"})
    video: tuple[Path, ...] = field(
        default=(),
        metadata={
            "help": (
                "A video: a file, an animated GIF, PNG or WebP, or a folder of frames. "
                "Videos follow images."
            ),
            "metavar": "PATH",
        },
    )
    frames: int = field(
        default=8,
        metadata={"help": "Most frames of each video, evenly spaced.", "interval": "[1, inf)"},
    )
    max_new_tokens: int = field(
        default=64, metadata={"help": "Longest answer, in tokens.", "interval": "[1, inf)"}
    )

    def __post_init__(self) -> None:
        check_options(self)

    def read(self) -> tuple[list[Image.Image], list[list[Image.Image]]]:
        """The images, and the frames of the videos.

        Raises:
            CommandError: None is named, or a file cannot be read.
        """
        if not (self.image or self.video):
            raise CommandError("There is nothing to look at: give --image or --video.", exit_code=2)
        images = [read_picture(path) for path in self.image]
        return images, [read_video(path, self.frames) for path in self.video]
