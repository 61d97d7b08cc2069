"""Ask a model one question about images or videos, with all or some of their visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NewType

from ..data.download import download_image, is_address
from ..data.media import check_video, read_image, read_video
from ..options import check_options
from .checkpoint import Checkpoint
from .console import working
from .errors import CommandError
from .options import FRAMES

if TYPE_CHECKING:
    from PIL import Image

    from ..compression.report import CompressionReport

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


@dataclass(frozen=True)
class Answer:
    """What a model said, and what it cost.

    Attributes:
        text: The answer, without special tokens.
        new_tokens: Tokens that were generated.
        milliseconds: Of the whole call: vision, scoring, rewriting and generation.
        kv_bytes: Bytes of the KV cache after the answer.
        report: What the last compressed call did.
    """

    text: str
    new_tokens: int
    milliseconds: float
    kv_bytes: int
    report: CompressionReport


def prepare_question(
    checkpoint: Checkpoint,
    images: Sequence[Image.Image],
    text: str,
    videos: Sequence[Sequence[Image.Image]] = (),
) -> Mapping[str, Any]:
    """One user turn: images, then videos, then the text, as tensors on the model's device.

    Raises:
        ValueError: An image has a shape that the processor refuses.
    """
    from ..data.chat import encode, user_turn

    inputs = encode(checkpoint.processor, [user_turn(text, images, videos)])
    prepared: Mapping[str, Any] = inputs.to(checkpoint.model.device, checkpoint.model.dtype)
    return prepared


def answer(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Any],
    *,
    max_new_tokens: int,
    retention_ratio: float | None = None,
) -> Answer:
    """Generate greedily and time it.

    Args:
        checkpoint: The model.
        inputs: From `prepare_question`.
        max_new_tokens: Most tokens to generate.
        retention_ratio: Overrides the model's setting; 1.0 runs the stock model.
    """
    from ..compression.stopwatch import Stopwatch
    from ..evaluation.speed.bench import cache_bytes

    model = checkpoint.model
    stopwatch = Stopwatch(model.device)
    with stopwatch.running():
        output = model.generate(
            **inputs,
            token_compression=False if retention_ratio == 1.0 else retention_ratio,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
        )
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    return Answer(
        text=checkpoint.processor.decode(new_ids, skip_special_tokens=True).strip(),
        new_tokens=len(new_ids),
        milliseconds=stopwatch.milliseconds,
        kv_bytes=cache_bytes(output),
        report=model.token_compression.last,
    )
