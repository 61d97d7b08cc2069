"""Questions with known answers, and with the image region that each answer rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .scenes import Drawings, clip_questions, make_clip, make_scene, scene_questions

Box = tuple[int, int, int, int]

_MOST_SCENES_FOR_ONE = 20


@dataclass(frozen=True)
class Sample:
    """One question about one image or one clip.

    Attributes:
        image: The image, RGB; of a clip its first frame.
        question: The question in words.
        answer: The right answer.
        kind: Kind of question.
        relevant_boxes: Pixel boxes (left, top, right, bottom) that the answer rests on; empty
            where it rests on no one place.
        frames: The frames of a clip, RGB, all of one size; empty for an image.
        relevant_frames: For a clip, the frame of each relevant box, counted from 0.
    """

    image: Image.Image
    question: str
    answer: str
    kind: str
    relevant_boxes: tuple[Box, ...]
    frames: tuple[Image.Image, ...] = ()
    relevant_frames: tuple[int, ...] = ()


def scene_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    seed: int = 0,
    rows: int = 4,
    columns: int = 4,
    split: str = "test",
    drawings: Drawings | None = None,
    artists: Sequence[str] | None = None,
) -> list[Sample]:
    """Questions about composed scenes, each scene asked one question of each kind.

    The same arguments give the same samples; a scene that allows no question of a kind is passed
    over for that kind.

    Args:
        kinds: Kinds of questions, of `hf_token_compress.data.scenes.KINDS`.
        per_kind: Questions of each kind.
        seed: Seed of the first scene; the next scenes follow it.
        rows: Rows of cells.
        columns: Columns of cells.
        split: "test" for compositions that training never used.
        drawings: The drawings; by default those that come with the library.
        artists: Artists to draw from; by default all of `drawings`.

    Raises:
        ValueError: A kind is unknown, `per_kind` is below 1, or scenes of this size allow no
            question of a kind.
    """
    if per_kind < 1:
        raise ValueError(f"per_kind must be at least 1, but it is {per_kind}.")
    samples: list[Sample] = []
    missing = dict.fromkeys(kinds, per_kind)
    last_asked = dict.fromkeys(kinds, seed)
    scene_seed = seed
    while wanted := [kind for kind, count in missing.items() if count > 0]:
        scene = make_scene(
            scene_seed, rows=rows, columns=columns, split=split, drawings=drawings, artists=artists
        )
        for question in scene_questions(scene, kinds=wanted, seed=scene_seed):
            missing[question.kind] -= 1
            last_asked[question.kind] = scene_seed
            samples.append(
                Sample(
                    image=scene.image,
                    question=question.text,
                    answer=question.answer,
                    kind=question.kind,
                    relevant_boxes=question.relevant_boxes,
                )
            )
        for kind in wanted:
            if scene_seed - last_asked[kind] >= _MOST_SCENES_FOR_ONE:
                raise ValueError(
                    f"Pictures of {rows} x {columns} drawings allow no question of the kind "
                    f"{kind!r}: leave that kind out, or choose other numbers of rows and columns."
                )
        scene_seed += 1
    return samples


def clip_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    frames: int = 4,
    hold: int = 1,
    seed: int = 0,
    rows: int = 4,
    columns: int = 4,
    split: str = "test",
    drawings: Drawings | None = None,
) -> list[Sample]:
    """Questions about composed clips, each clip asked one question of each kind.

    The same arguments give the same samples.

    Args:
        kinds: Kinds of questions, of `hf_token_compress.data.scenes.CLIP_KINDS`.
        per_kind: Questions of each kind.
        frames: Scenes of every clip.
        hold: Frames for which each scene is shown.
        seed: Seed of the first clip; the next clips follow it.
        rows: Rows of cells.
        columns: Columns of cells.
        split: "test" for compositions that training never used.
        drawings: The drawings; by default those that come with the library.

    Raises:
        ValueError: A kind is unknown, `per_kind` is below 1, or there are fewer concepts than
            cells in all frames of a clip.
    """
    if per_kind < 1:
        raise ValueError(f"per_kind must be at least 1, but it is {per_kind}.")
    samples: list[Sample] = []
    for number in range(seed, seed + per_kind):
        clip = make_clip(number, frames, rows, columns, split, drawings, hold)
        samples += [
            Sample(
                image=clip.images[0],
                question=question.text,
                answer=question.answer,
                kind=question.kind,
                relevant_boxes=question.relevant_boxes,
                frames=tuple(clip.images),
                relevant_frames=question.relevant_frames,
            )
            for question in clip_questions(clip, kinds, seed=number)
        ]
    return samples
