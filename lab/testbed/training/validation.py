"""Pictures and questions that reports of the trainings are about: never trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lab.testbed.objects.clips import make_things_clip
from lab.testbed.objects.questions import KINDS, clip_questions, picture_questions
from lab.testbed.training.curriculum import Lesson, Stage, clip_lesson, picture_lesson
from lab.testbed.training.sources import Source, drawn, stored
from lab.testbed.training.vision import pixels_of
from lab.testbed.training.words import patch_classes
from lab.tiny.packing import Packer

PICTURES = 48
CLIPS = 16
STORED = {"photographs": 0.25, "rendered": 0.15}
"""Sources whose pictures are stored, and how often each is shown."""


def other_sources(work: Path) -> list[tuple[Source, float]]:
    """Stored sources that the folder holds, for training."""
    return [(stored(path), STORED[title]) for title, path in _files(work, "train")]


def validation_sources(work: Path) -> dict[str, Source]:
    """All sources, by name, of pictures that are not trained on."""
    found = {"drawings": drawn("validation")}
    found.update({title: stored(path) for title, path in _files(work, "validation")})
    return found


def _files(work: Path, split: str) -> Iterator[tuple[str, Path]]:
    for title in STORED:
        path = work / f"{title}-{split}.zip"
        if path.is_file():
            yield title, path


def validation_boards(
    sources: Mapping[str, Source], patches: int
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By name of a source, pixels and patch classes."""
    boards = {}
    for title, source in sources.items():
        shown = [source(number) for number in range(PICTURES)]
        classes = [patch_classes(picture, patches) for picture in shown]
        boards[title] = (
            pixels_of([picture.image for picture in shown]),
            torch.stack([names for names, _ in classes]),
            torch.stack([colours for _, colours in classes]),
        )
    return boards


def validation_lessons(
    sources: Mapping[str, Source], packer: Packer, patches: int
) -> dict[str, Lesson]:
    """By name of a source, and "clips", one question of every kind about every picture."""
    stage = Stage(until=1, view="pictures", kinds={})
    generator = torch.Generator()
    lessons = {}
    for title, source in sources.items():
        shown = [source(number) for number in range(PICTURES)]
        asked = [picture_questions(p, KINDS, seed=i, per_kind=1) for i, p in enumerate(shown)]
        some = [pair for pair in zip(shown, asked, strict=True) if pair[1]]
        pictures, questions = [p for p, _ in some], [q for _, q in some]
        lessons[title] = picture_lesson(pictures, questions, packer, patches, stage, generator)
    clips = [make_things_clip(number, "validation") for number in range(CLIPS)]
    about = [clip_questions(clip, seed=i) for i, clip in enumerate(clips)]
    lessons["clips"] = clip_lesson(clips, about, packer, patches, stage, generator)
    return lessons
