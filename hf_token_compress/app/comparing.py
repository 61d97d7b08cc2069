"""Ask a model a question with all and with some of its visual tokens, and explain the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image

from ..asking import Answer, Checkpoint, answer, prepare_question
from ..compression.report import SampleReport
from ..config import Modality, TokenCompressionConfig
from ..data.media import read_frames, read_image, read_video, to_rgb
from ..hub import first_line
from ..relevance import relevance
from ..viz import frame_sheet, heat_map, overlay, prompt_heat_maps

EXPECTED_ERRORS = (
    *(ImportError, NotImplementedError, OSError, TypeError, ValueError),
    torch.OutOfMemoryError,
)
"""Errors that the user can do something about; their first line says what."""

Visual: TypeAlias = Image.Image | Sequence[str | Path]
"""An image, or its file; or a video: its file, or the files of its frames."""


def reason(error: Exception, shown: Visual) -> str:
    """The first line of an error's message, with files by name: uploads lie in odd folders."""
    sentence = first_line(error)
    for file in () if isinstance(shown, Image.Image) else shown:
        path, name = str(file), Path(file).name
        # Messages quote a path as Python does, which doubles backslashes.
        for written, short in ((path, name), (repr(path)[1:-1], repr(name)[1:-1])):
            sentence = sentence.replace(written, short)
    return sentence


def drawn(canvas: Mapping[str, Any] | None) -> Image.Image:
    """The drawing on a canvas.

    Raises:
        ValueError: There is none.
    """
    image: Image.Image | None = canvas["composite"] if canvas else None
    if image is None or image.getcolors(maxcolors=1) is not None:
        raise ValueError("The drawing is empty: draw something on it, or choose an example.")
    return image


@dataclass(frozen=True)
class Comparison:
    """One question, asked with all visual tokens and with those that a setting keeps.

    Attributes:
        full: The stock model's answer.
        compressed: The answer with the kept tokens.
        kept: The image, or a sheet of the video's frames, with the kept tokens lit.
        relevance: Heat maps of what the stock model's answer depends on; None if they were not
            asked for or cannot be made.
        unexplained: Why they cannot be made, in one sentence; "" otherwise.
    """

    full: Answer
    compressed: Answer
    kept: Image.Image
    relevance: Image.Image | None
    unexplained: str

    @property
    def report(self) -> SampleReport:
        """What the compressed call did."""
        return _only_sample(self.compressed)


@dataclass
class Comparer:
    """Asks one model, for any number of users.

    Every call has its own setting, so threads do not interfere.

    Attributes:
        checkpoint: The model.
        settings: The setting that each modality starts from.
        frames: Frames to take of a video.
        max_new_tokens: Longest answer, in tokens.
    """

    checkpoint: Checkpoint
    settings: Mapping[Modality, TokenCompressionConfig]
    frames: int
    max_new_tokens: int
    _warm: set[tuple[Any, ...]] = field(default_factory=set, init=False)

    def __call__(
        self,
        question: str,
        shown: Visual,
        *,
        modality: Modality = "image",
        changes: Mapping[str, Any],
        explained: bool = True,
    ) -> Comparison:
        """Ask a question about an image or a video.

        Args:
            question: The question.
            shown: The image or the video; empty for neither.
            modality: Which of the two it is.
            changes: Settings to change for this call, such as the retention ratio.
            explained: Whether to draw what the answer depends on.

        Raises:
            ImportError, NotImplementedError, OSError, TypeError, ValueError: Something is missing,
                cannot be read, or does not fit the model; the first line says what.
            torch.OutOfMemoryError: The accelerator's memory is too small.
        """
        if not question.strip():
            raise ValueError("There is no question: type one, or choose an example.")
        if not shown:
            raise ValueError(f"There is no {modality} to look at: add one, or choose an example.")
        setting = self.settings[modality].changed(changes)
        images, videos = self._read(shown, modality)
        inputs = prepare_question(self.checkpoint, images, question.strip(), videos)
        full, compressed = self._answers(inputs, modality, setting)
        sample = _only_sample(compressed)
        kept = overlay(images[0], sample) if images else frame_sheet(videos[0], sample)
        heat, unexplained = None, ""
        if explained:
            try:
                found = relevance(
                    self.checkpoint.model, inputs, max_new_tokens=self.max_new_tokens
                ).samples[0]
                heat = heat_map(images[0], found) if images else prompt_heat_maps(videos, found)
            except EXPECTED_ERRORS as error:
                unexplained = f"The answer cannot be explained: {first_line(error)}"
        return Comparison(full, compressed, kept, heat, unexplained)

    def _read(
        self, shown: Visual, modality: Modality
    ) -> tuple[list[Image.Image], list[list[Image.Image]]]:
        """The image or the video of the prompt; the other list is empty."""
        if isinstance(shown, Image.Image):
            return [to_rgb(shown)], []
        if modality == "image":
            return [read_image(shown[0])], []
        if len(shown) > 1:
            return [], [read_frames(shown)]
        return [], [read_video(shown[0], self.checkpoint.processor, self.frames)]

    def _answers(
        self, inputs: Mapping[str, Any], modality: Modality, setting: TokenCompressionConfig
    ) -> tuple[Answer, Answer]:
        """Both answers, timed after a warm-up."""
        key = (modality, setting.scorer_name, setting.selection_name)
        # The first call of each kind is slower, so its times are thrown away.
        for _ in range(1 if key in self._warm else 2):
            compressed = self._answer(inputs, setting)
            full = self._answer(inputs, False)
        self._warm.add(key)
        return full, compressed

    def _answer(
        self, inputs: Mapping[str, Any], setting: TokenCompressionConfig | Literal[False]
    ) -> Answer:
        return answer(
            self.checkpoint,
            inputs,
            max_new_tokens=self.max_new_tokens,
            token_compression=setting,
        )


def _only_sample(compressed: Answer) -> SampleReport:
    assert compressed.report is not None
    return compressed.report.samples[0]
