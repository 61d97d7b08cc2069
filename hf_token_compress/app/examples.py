"""Composed images and clips with a question each, as files: what the tiny models know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..config import Modality
from ..data.scenes import (
    CLIP_KINDS,
    KINDS,
    Question,
    clip_questions,
    make_clip,
    make_scene,
    scene_questions,
)

_SCENES = 3
_FRAMES_PER_SCENE = 2  # Qwen2-VL merges frames in pairs


@dataclass(frozen=True)
class Example:
    """An image, or the frames of a video, as files; a question about it, and the right answer."""

    files: tuple[Path, ...]
    question: str
    answer: str


def write_examples(folder: Path, modality: Modality) -> list[Example]:
    """Write held-out images or clips as PNG files, with one question of each kind.

    Raises:
        OSError: The files cannot be written.
    """
    kinds, compose = (KINDS, _scene) if modality == "image" else (CLIP_KINDS, _clip)
    examples = []
    for number, kind in enumerate(kinds, start=1):
        images, question = compose(number, kind)
        files = []
        for frame, image in enumerate(images, start=1):
            path = folder / f"{modality}-{number}-{frame}.png"
            image.save(path)
            files.append(path)
        examples.append(Example(tuple(files), question.text, question.answer))
    return examples


def _scene(seed: int, kind: str) -> tuple[list[Image.Image], Question]:
    scene = make_scene(seed, split="test")
    return [scene.image], scene_questions(scene, [kind], seed)[0]


def _clip(seed: int, kind: str) -> tuple[list[Image.Image], Question]:
    clip = make_clip(seed, _SCENES, split="test", frames_per_scene=_FRAMES_PER_SCENE)
    return clip.images, clip_questions(clip, [kind], seed)[0]
