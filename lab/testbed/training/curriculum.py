"""What every update of the language model's training shows and asks.

The curriculum begins with the words of things alone, where looking up one thing by another is
learned in a few hundred cheap updates, and goes on to pictures of ever more things, and to clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_token_compress.data.scenes import Question
from lab.testbed.objects.clips import ThingsClip, make_things_clip
from lab.testbed.objects.picture import Picture
from lab.testbed.objects.questions import CLIP_KINDS, ask, ask_clip
from lab.testbed.training.sources import Source, drawn, random_source
from lab.testbed.training.vision import pixels_of
from lab.testbed.training.words import patch_classes, thing_classes
from lab.tiny.packing import (
    PackedBatch,
    Packer,
    drop_visual_tokens,
    sequence_positions,
)

BARE_GRID = (3, 3)
"""Rows and columns of the pictures of which only the words of the things are shown."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        until: Update at which it ends.
        view: "bare" for one ideal visual token a thing and no chat turn, "words" for pictures whose
            visual tokens are ideal, "pictures" for those of tower and projector.
        kinds: How often each kind of question is asked.
        most_things: Most things of a drawn picture.
        clip_share: Share of the updates that are on clips.
        drop_share: Share of the updates in which visual tokens are dropped at random.
        early_weight: Weight of the early answers, as `answer_loss` takes it.
    """

    until: int
    view: Literal["bare", "words", "pictures"]
    kinds: Mapping[str, float]
    most_things: int = 9
    clip_share: float = 0.0
    drop_share: float = 0.0
    early_weight: float = 0.0


ALL_KINDS: Mapping[str, float] = {
    "place": 3,
    "attribute": 3,
    "relation": 2,
    "count": 2,
    "presence": 2,
    "where": 1,
}


def curriculum(steps: int) -> tuple[Stage, ...]:
    """The stages of a training of so many updates."""
    lookups = {"attribute": 2, "where": 1, "place": 2, "relation": 1}
    first = min(steps // 12, 150)
    return (
        Stage(first, "bare", {"attribute": 1.0}),
        Stage(2 * first, "bare", lookups),
        Stage(3 * first, "words", lookups, early_weight=0.3),
        Stage(6 * first, "pictures", lookups, early_weight=0.3),
        Stage(8 * first, "pictures", ALL_KINDS, 16, 0.15, 0.3, 0.3),
        Stage(steps, "pictures", ALL_KINDS, 16, 0.2, 0.6),
    )


@dataclass(frozen=True)
class Lesson:
    """One update. Shapes: B prompts of F frames each (F is 1 for pictures), N patches a frame.

    Attributes:
        view: As of its stage.
        pixels: (B * F, H, W, 3) uint8; empty for "bare".
        names: (B * F, N) int64, what each patch lies on; for "bare" of the B x T things.
        colours: (B * F, N) int64, likewise.
        frames: Frames of the clips; 0 for pictures.
        asked: Questions about every picture or clip.
        batch: The packed questions.
        early_weight: As of its stage.
    """

    view: str
    pixels: Tensor
    names: Tensor
    colours: Tensor
    frames: int
    asked: list[list[Question]]
    batch: PackedBatch
    early_weight: float = 0.0

    def to(self, device: torch.device | str) -> Lesson:
        """The same lesson with its tensors on a device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("pixels", "names", "colours", "batch")
        }
        return replace(self, **moved)


class Lessons(Dataset[Lesson]):
    """The lesson of every update: a function of its number, the seed and the sources alone.

    Args:
        packers: Of prompts with and without a chat turn, by "chat" and "bare".
        stages: The curriculum.
        sources: Of pictures beside drawn ones, with how often each is shown.
        patches: Patches a side of a picture.
        pictures: Pictures an update; clips are as many frames.
        questions: Questions a picture; a clip has twice as many.
        frames: Frames of a clip.
        seed: Seed of everything.
    """

    def __init__(
        self,
        packers: Mapping[str, Packer],
        stages: Sequence[Stage],
        sources: Sequence[tuple[Source, float]] = (),
        *,
        patches: int = 16,
        pictures: int = 48,
        questions: int = 12,
        frames: int = 4,
        seed: int = 7,
    ) -> None:
        self._packers = packers
        self._stages = stages
        self._sources = sources
        self._patches = patches
        self._pictures = pictures
        self._questions = questions
        self._frames = frames
        self._seed = seed

    def __len__(self) -> int:
        return self._stages[-1].until

    def __getitem__(self, step: int) -> Lesson:
        stage = next(stage for stage in self._stages if step < stage.until)
        rng = np.random.default_rng([self._seed, step])
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        first = step * self._pictures
        if stage.view == "bare":
            return self._bare(stage, first, rng)
        if rng.random() < stage.clip_share:
            return self._clips(stage, first, rng, generator)
        sources = [
            random_source(rng, self._sources, stage.most_things) for _ in range(self._pictures)
        ]
        shown = [source(first + i) for i, source in enumerate(sources)]
        asked = [_questions(picture, stage.kinds, self._questions, rng) for picture in shown]
        return picture_lesson(shown, asked, self._packers["chat"], self._patches, stage, generator)

    def _bare(self, stage: Stage, first: int, rng: np.random.Generator) -> Lesson:
        rows, columns = BARE_GRID
        shown = [
            drawn("train", rows=rows, columns=columns)(first + i) for i in range(self._pictures)
        ]
        asked = [_questions(picture, stage.kinds, self._questions, rng) for picture in shown]
        classes = [thing_classes(picture.things) for picture in shown]
        count = rows * columns
        every = torch.arange(count).expand(len(shown), count)
        return Lesson(
            view="bare",
            pixels=torch.empty(0, dtype=torch.uint8),
            names=torch.stack([names for names, _ in classes]),
            colours=torch.stack([colours for _, colours in classes]),
            frames=0,
            asked=asked,
            batch=self._packers["bare"].pack(asked, sequence_positions(count), every),
        )

    def _clips(
        self, stage: Stage, first: int, rng: np.random.Generator, generator: torch.Generator
    ) -> Lesson:
        count = max(1, self._pictures // self._frames)
        clips = [make_things_clip(first + i, "train", frames=self._frames) for i in range(count)]
        asked = [
            [ask_clip(clip, str(kind), rng) for kind in rng.choice(CLIP_KINDS, 2 * self._questions)]
            for clip in clips
        ]
        return clip_lesson(clips, asked, self._packers["chat"], self._patches, stage, generator)


def picture_lesson(
    shown: Sequence[Picture],
    asked: list[list[Question]],
    packer: Packer,
    patches: int,
    stage: Stage,
    generator: torch.Generator,
) -> Lesson:
    """The lesson of these pictures and questions."""
    count = patches * (2 * patches + 1)
    kept = drop_visual_tokens(len(shown), count, generator, stage.drop_share)
    classes = [patch_classes(picture, patches) for picture in shown]
    return Lesson(
        view=stage.view,
        pixels=pixels_of([picture.image for picture in shown]),
        names=torch.stack([names for names, _ in classes]),
        colours=torch.stack([colours for _, colours in classes]),
        frames=0,
        asked=asked,
        batch=packer.pack(asked, sequence_positions(count), kept),
        early_weight=stage.early_weight,
    )


def clip_lesson(
    clips: Sequence[ThingsClip],
    asked: list[list[Question]],
    packer: Packer,
    patches: int,
    stage: Stage,
    generator: torch.Generator,
) -> Lesson:
    """The lesson of these clips and questions."""
    shown = [picture for clip in clips for picture in clip.frames]
    frames = len(clips[0].frames)
    count = frames * (patches // 2) ** 2 + 1
    kept = drop_visual_tokens(len(clips), count, generator, stage.drop_share)
    classes = [patch_classes(picture, patches) for picture in shown]
    return Lesson(
        view=stage.view,
        pixels=pixels_of([picture.image for picture in shown]),
        names=torch.stack([names for names, _ in classes]),
        colours=torch.stack([colours for _, colours in classes]),
        frames=frames,
        asked=asked,
        batch=packer.pack(asked, sequence_positions(count), kept),
        early_weight=stage.early_weight,
    )


def _questions(
    picture: Picture, kinds: Mapping[str, float], count: int, rng: np.random.Generator
) -> list[Question]:
    """`count` questions, of kinds in these proportions where the picture allows them.

    A picture that allows none of these kinds is asked what it shows and what not.
    """
    found = list(_tries(picture, kinds, count, rng))
    if not found:
        found = list(_tries(picture, {"presence": 1.0}, count, rng))
    while len(found) < count:
        found.append(found[rng.integers(len(found))])
    return found


def _tries(
    picture: Picture, kinds: Mapping[str, float], count: int, rng: np.random.Generator
) -> Iterator[Question]:
    weights = np.array(list(kinds.values()), dtype=float)
    for kind in rng.choice(list(kinds), count, p=weights / weights.sum()):
        question = ask(picture, str(kind), rng)
        if question is not None:
            yield question
