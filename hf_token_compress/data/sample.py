"""One question about images or about a video, with what is known of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from PIL import Image

from .choices import choices_prompt, named_choice
from .scenes import Box

if TYPE_CHECKING:
    from ..prompt import Modality  # needs torch, which reading of data does not


@dataclass(frozen=True)
class Sample:
    """One question about images, or about a video.

    Attributes:
        modality: "image" or "video".
        visuals: Its images (RGB), or its one video: a tuple of frames (RGB, all of one size), or
            the path of a file.
        question: The question in words.
        answer: The right answer; None if it is unknown. With choices, the text of the right one.
        kind: Kind of question; None if there is only one.
        relevant_boxes: Pixel boxes (left, top, right, bottom) that the answer depends on, empty if
            it depends on no one place; None if they are unknown.
        relevant_frames: For a video, the frame of each relevant box, counted from 0.
        other_answers: Further answers that are right.
        choices: Texts of the choices of a multiple-choice question.
        prompt_suffix: What is said after the question and its choices; by default, with choices,
            to answer with the letter.
    """

    modality: Modality
    visuals: tuple[Any, ...]
    question: str
    answer: str | None = None
    kind: str | None = None
    relevant_boxes: tuple[Box, ...] | None = None
    relevant_frames: tuple[int, ...] = ()
    other_answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    prompt_suffix: str | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """All right answers; empty if they are unknown."""
        return () if self.answer is None else (self.answer, *self.other_answers)

    @property
    def asks_for_letter(self) -> bool:
        """Whether the prompt asks for the letter of the right choice."""
        return bool(self.choices) and self.prompt_suffix is None

    @property
    def expected_answer(self) -> str:
        """The first right answer, as a letter if that is asked for; empty if it is unknown."""
        answer = self.answer or ""
        index = named_choice(answer, self.choices) if self.asks_for_letter else None
        return answer if index is None else ascii_uppercase[index]

    @property
    def prompt(self) -> str:
        """What the model is asked, as `choices_prompt` writes it."""
        return choices_prompt(self.question, self.choices, self.prompt_suffix)

    @property
    def frames(self) -> tuple[Image.Image, ...]:
        """The frames of a video; empty for images, and for a file that is not decoded yet."""
        if self.modality == "video" and isinstance(self.visuals[0], tuple | list):
            return tuple(self.visuals[0])
        return ()

    @property
    def image(self) -> Image.Image:
        """The first image, or the first frame of a video."""
        return (self.frames or self.visuals)[0]

    @property
    def is_video_file(self) -> bool:
        """Whether it is about a video that is not decoded yet."""
        return self.modality == "video" and isinstance(self.visuals[0], str | Path)
