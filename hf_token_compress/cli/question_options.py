"""The question that `run` and `explain` ask about the user's images and videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.media import check_video, read_image, read_video
from ..options import check_options
from .errors import CommandError

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
    frames: int | None = field(
        default=None,
        metadata={
            "help": (
                "Frames to take of each video file. Some processors round the number. By default "
                "as many as the processor says."
            ),
            "interval": "[1, inf)",
        },
    )
    max_new_tokens: int = field(
        default=64, metadata={"help": "Longest answer, in tokens.", "interval": "[1, inf)"}
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def count(self) -> int:
        """Number of images and videos."""
        return len(self.image) + len(self.video)

    def read_images(self) -> list[Image.Image]:
        """The images; the videos are only looked for, as reading them needs the processor.

        Raises:
            CommandError: None is named.
            OSError, ValueError: A file is missing, or is not an image.
        """
        if self.count == 0:
            raise CommandError("There is nothing to look at: give --image or --video.", exit_code=2)
        for path in self.video:
            check_video(path)
        return [read_image(path) for path in self.image]

    def read_videos(self, processor: Any) -> list[list[Image.Image]]:
        """The frames of each video that the model sees.

        Raises:
            ImportError, OSError, ValueError: A video cannot be read.
        """
        return [read_video(path, processor, self.frames) for path in self.video]
