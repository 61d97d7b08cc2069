"""Images and questions of each update of the language model's training.

The curriculum starts with the words of the objects alone: looking up one object by another is
learned in a few hundred cheap updates. Images with more and more objects follow, and then clips.
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

from ...tiny.packing import (
    PackedBatch,
    Packer,
    drop_visual_tokens,
    sequence_positions,
)
from ..objects.clips import ObjectClip, make_object_clip
from ..objects.questions import CLIP_KINDS, ask, ask_clip
from ..objects.scene import ObjectScene
from .sources import Source, drawn, random_source
from .words import labelled_pixels, object_classes

BARE_GRID = (3, 3)
"""Rows and columns of the images that are shown as words only."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        until: Update at which the stage ends.
        view: "bare" for one ideal visual token per object and no chat turn, "words" for images with
            ideal visual tokens, "images" for visual tokens from tower and projector.
        kinds: Relative frequency of each kind of question.
        max_objects: Maximum number of objects in a drawn image.
        clip_share: Share of updates on clips.
        drop_share: Share of updates in which visual tokens are dropped at random.
        early_weight: Weight of early answers, as in `answer_loss`.
    """

    until: int
    view: Literal["bare", "words", "images"]
    kinds: Mapping[str, float]
    max_objects: int = 9
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


def curriculum_stages(steps: int) -> tuple[Stage, ...]:
    """The stages of a training with `steps` updates."""
    lookups = {"attribute": 2, "where": 1, "place": 2, "relation": 1}
    first = min(steps // 12, 150)
    return (
        Stage(first, "bare", {"attribute": 1.0}),
        Stage(2 * first, "bare", lookups),
        Stage(3 * first, "words", lookups, early_weight=0.3),
        Stage(6 * first, "images", lookups, early_weight=0.3),
        Stage(8 * first, "images", ALL_KINDS, 16, 0.15, 0.3, 0.3),
        Stage(steps, "images", ALL_KINDS, 16, 0.2, 0.6),
    )


@dataclass(frozen=True)
class TrainingBatch:
    """One update: B prompts with F frames each (1 for images) and N patches per frame.

    Attributes:
        view: View of the stage.
        pixels: [B * F, H, W, 3] uint8; empty for "bare".
        names: [B * F, N] int64, class of the object under each patch; [B, objects] for "bare".
        colours: [B * F, N] int64, class of its colour; [B, objects] for "bare".
        frames: Frames per clip; 0 for images.
        asked: Questions about each image or clip.
        packed: The packed questions.
        early_weight: Weight of early answers of the stage.
    """

    view: str
    pixels: Tensor
    names: Tensor
    colours: Tensor
    frames: int
    asked: list[list[Question]]
    packed: PackedBatch
    early_weight: float = 0.0

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same batch with its tensors on a device."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("pixels", "names", "colours", "packed")
        }
        return replace(self, **moved)


class Curriculum(Dataset[TrainingBatch]):
    """The batch of each update; it depends on the number of the update, the seed and the sources.

    Args:
        packers: Packers of prompts with ("chat") and without ("bare") a chat turn.
        stages: The stages in order.
        sources: Sources other than drawings, with the share of each.
        patches: Patches per side of an image.
        images: Images per update; clips have as many frames in total.
        questions: Questions per image; clips have twice as many.
        frames: Frames per clip.
        seed: Seed of all random choices.
    """

    def __init__(
        self,
        packers: Mapping[str, Packer],
        stages: Sequence[Stage],
        sources: Sequence[tuple[Source, float]] = (),
        *,
        patches: int = 16,
        images: int = 48,
        questions: int = 12,
        frames: int = 4,
        seed: int = 7,
    ) -> None:
        self._packers = packers
        self._stages = stages
        self._sources = sources
        self._patches = patches
        self._images = images
        self._questions = questions
        self._frames = frames
        self._seed = seed

    def __len__(self) -> int:
        return self._stages[-1].until

    def __getitem__(self, step: int) -> TrainingBatch:
        stage = next(stage for stage in self._stages if step < stage.until)
        rng = np.random.default_rng([self._seed, step])
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        first = step * self._images
        if stage.view == "bare":
            return self._bare(stage, first, rng)
        if rng.random() < stage.clip_share:
            return self._clips(stage, first, rng, generator)
        sources = [
            random_source(rng, self._sources, stage.max_objects) for _ in range(self._images)
        ]
        shown = [source(first + i) for i, source in enumerate(sources)]
        asked = [_questions(scene, stage.kinds, self._questions, rng) for scene in shown]
        return image_batch(shown, asked, self._packers["chat"], self._patches, stage, generator)

    def _bare(self, stage: Stage, first: int, rng: np.random.Generator) -> TrainingBatch:
        rows, columns = BARE_GRID
        shown = [drawn("train", rows=rows, columns=columns)(first + i) for i in range(self._images)]
        asked = [_questions(scene, stage.kinds, self._questions, rng) for scene in shown]
        classes = [object_classes(scene.objects) for scene in shown]
        count = rows * columns
        every = torch.arange(count).expand(len(shown), count)
        return TrainingBatch(
            view="bare",
            pixels=torch.empty(0, dtype=torch.uint8),
            names=torch.stack([names for names, _ in classes]),
            colours=torch.stack([colours for _, colours in classes]),
            frames=0,
            asked=asked,
            packed=self._packers["bare"].pack(asked, sequence_positions(count), every),
        )

    def _clips(
        self, stage: Stage, first: int, rng: np.random.Generator, generator: torch.Generator
    ) -> TrainingBatch:
        count = max(1, self._images // self._frames)
        clips = [make_object_clip(first + i, "train", frames=self._frames) for i in range(count)]
        asked = [
            [ask_clip(clip, str(kind), rng) for kind in rng.choice(CLIP_KINDS, 2 * self._questions)]
            for clip in clips
        ]
        return clip_batch(clips, asked, self._packers["chat"], self._patches, stage, generator)


def image_batch(
    shown: Sequence[ObjectScene],
    asked: list[list[Question]],
    packer: Packer,
    patches: int,
    stage: Stage,
    generator: torch.Generator,
) -> TrainingBatch:
    """The batch of these images and questions."""
    count = patches * (2 * patches + 1)
    kept = drop_visual_tokens(len(shown), count, generator, stage.drop_share)
    pixels, names, colours = labelled_pixels(shown, patches)
    return TrainingBatch(
        view=stage.view,
        pixels=pixels,
        names=names,
        colours=colours,
        frames=0,
        asked=asked,
        packed=packer.pack(asked, sequence_positions(count), kept),
        early_weight=stage.early_weight,
    )


def clip_batch(
    clips: Sequence[ObjectClip],
    asked: list[list[Question]],
    packer: Packer,
    patches: int,
    stage: Stage,
    generator: torch.Generator,
) -> TrainingBatch:
    """The batch of these clips and questions."""
    shown = [scene for clip in clips for scene in clip.frames]
    frames = len(clips[0].frames)
    count = frames * (patches // 2) ** 2 + 1
    kept = drop_visual_tokens(len(clips), count, generator, stage.drop_share)
    pixels, names, colours = labelled_pixels(shown, patches)
    return TrainingBatch(
        view=stage.view,
        pixels=pixels,
        names=names,
        colours=colours,
        frames=frames,
        asked=asked,
        packed=packer.pack(asked, sequence_positions(count), kept),
        early_weight=stage.early_weight,
    )


def _questions(
    scene: ObjectScene, kinds: Mapping[str, float], count: int, rng: np.random.Generator
) -> list[Question]:
    """Ask `count` questions, with these proportions of kinds where the scene has them.

    A scene without a question of these kinds gets questions of the kind "presence".
    """
    found = list(_tries(scene, kinds, count, rng))
    if not found:
        found = list(_tries(scene, {"presence": 1.0}, count, rng))
    while len(found) < count:
        found.append(found[rng.integers(len(found))])
    return found


def _tries(
    scene: ObjectScene, kinds: Mapping[str, float], count: int, rng: np.random.Generator
) -> Iterator[Question]:
    weights = np.array(list(kinds.values()), dtype=float)
    for kind in rng.choice(list(kinds), count, p=weights / weights.sum()):
        question = ask(scene, str(kind), rng)
        if question is not None:
            yield question
