"""Options of commands that ask one question about images or videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NewType

from ..data.download import download_image, is_address
from ..data.media import check_video, read_image, read_video
from ..options import check_options
from .console import working
from .errors import CommandError
from .options import FRAMES

if TYPE_CHECKING:
    from PIL import Image

# A file, or an address on the web; neither is split at its commas.
MediaSource = NewType("MediaSource", str)


@dataclass(frozen=True)
class QuestionOptions:
    """A question, and what it is about."""

    prompt: str = field(metadata={"help": "The question."})
    image: tuple[MediaSource, ...] = field(
        default=(),
        metadata={"help": "An image: a file, or its address on the web.", "metavar": "FILE|URL"},
    )
    video: tuple[MediaSource, ...] = field(
        default=(),
        metadata={
            "help": (
                "A video: a file, an animated GIF, PNG or WebP, or a folder of frames. "
                "Videos follow images."
            ),
            "metavar": "PATH",
        },
    )
    frames: int = field(default=8, metadata=FRAMES)
    max_new_tokens: int = field(
        default=64, metadata={"help": "Longest answer, in tokens.", "interval": "[1, inf)"}
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not self.prompt.strip():
            raise ValueError("--prompt is empty: give a question.")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the question is about: images, videos or both."""
        named = {"image": self.image, "video": self.video}
        return tuple(modality for modality, paths in named.items() if paths)

    def read_images(self) -> list[Image.Image]:
        """The images; the videos are only looked for, as reading them needs the processor.

        Raises:
            CommandError: None is named, or a video by its address.
            OSError, ValueError: A file is missing, cannot be downloaded, or is not an image.
        """
        if not (self.image or self.video):
            raise CommandError("There is nothing to look at: give --image or --video.", exit_code=2)
        for source in self.video:
            if is_address(source):
                raise CommandError(
                    f"--video takes files: download {source!r} first, and name the file.",
                    exit_code=2,
                )
            check_video(source)
        return [_image(source) for source in self.image]

    def read_videos(self, processor: Any) -> list[list[Image.Image]]:
        """The frames of each video that the model sees.

        Raises:
            ImportError, OSError, ValueError: A video cannot be read.
        """
        return [read_video(source, processor, self.frames) for source in self.video]


def _image(source: str) -> Image.Image:
    if not is_address(source):
        return read_image(source)
    with working(f"Downloading {source}"):
        return download_image(source)
