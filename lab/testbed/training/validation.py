"""Images and questions for the reports during training; they are never trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...tiny.packing import Packer
from ..objects.clips import make_object_clip
from ..objects.questions import KINDS, clip_questions, scene_questions
from .curriculum import Stage, TrainingBatch, clip_batch, image_batch
from .sources import Source, drawn, stored
from .words import labelled_pixels

SCENES = 48
CLIPS = 16
STORED = {"photographs": 0.25, "rendered": 0.15}
"""Stored sources, and the share of each in training."""


def other_sources(work: Path) -> list[tuple[Source, float]]:
    """Stored sources in the folder, for training."""
    return [(stored(path), STORED[title]) for title, path in _files(work, "train")]


def validation_sources(work: Path) -> dict[str, Source]:
    """All validation sources, by name."""
    found = {"drawings": drawn("validation")}
    found.update({title: stored(path) for title, path in _files(work, "validation")})
    return found


def _files(work: Path, split: str) -> Iterator[tuple[str, Path]]:
    for title in STORED:
        path = work / f"{title}-{split}.zip"
        if path.is_file():
            yield title, path


def validation_images(
    sources: Mapping[str, Source], patches: int
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Pixels and patch classes by name of a source."""
    return {
        title: labelled_pixels([source(number) for number in range(SCENES)], patches)
        for title, source in sources.items()
    }


def validation_batches(
    sources: Mapping[str, Source], packer: Packer, patches: int
) -> dict[str, TrainingBatch]:
    """One question of each kind about every image, by name of a source or "clips"."""
    stage = Stage(until=1, view="images", kinds={})
    generator = torch.Generator()
    batches = {}
    for title, source in sources.items():
        shown = [source(number) for number in range(SCENES)]
        asked = [scene_questions(p, KINDS, seed=i, per_kind=1) for i, p in enumerate(shown)]
        some = [pair for pair in zip(shown, asked, strict=True) if pair[1]]
        images, questions = [p for p, _ in some], [q for _, q in some]
        batches[title] = image_batch(images, questions, packer, patches, stage, generator)
    clips = [make_object_clip(number, "validation") for number in range(CLIPS)]
    about = [clip_questions(clip, seed=i) for i, clip in enumerate(clips)]
    batches["clips"] = clip_batch(clips, about, packer, patches, stage, generator)
    return batches
