"""Questions about images of objects, as the evaluation takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import Question

from .objects.clips import make_object_clip
from .objects.cutouts import HELD_OUT, Cutouts
from .objects.drawn import (
    HELD_OUT_ARTIST,
    TRAIN_ARTISTS,
    make_drawn_scene,
)
from .objects.photographed import make_photographed_scene
from .objects.questions import (
    CLIP_KINDS,
    KINDS,
    clip_questions,
    scene_questions,
)
from .objects.rendered import make_rendered_scene
from .objects.scene import ObjectScene

SourceName = Literal[
    "drawings", "held-out-artist", "photographs", "held-out-photographs", "rendered", "clips"
]
"""Sources of images; the held-out ones show drawings or photographs that training never shows."""

SOURCES: tuple[str, ...] = get_args(SourceName)

_MAX_SCENES_PER_QUESTION = 200

_TRIES = 3
"""Questions asked for each that is wanted of an image; some come out the same."""


def object_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    source: str = "drawings",
    seed: int = 0,
    split: str = "test",
    cutouts: Cutouts | None = None,
    per_image: int = 1,
) -> list[Sample]:
    """Questions about images or clips: at most `per_image` of each kind per image, one per clip.

    The same arguments give the same samples. An image without a question of some kind is skipped
    for that kind.

    Args:
        kinds: Kinds of questions, from `KINDS`, or from `CLIP_KINDS` for clips.
        per_kind: Questions of each kind, at least 1.
        source: One of `SOURCES`.
        seed: Number of the first image.
        split: Name of a stream of images; training never uses "test".
        cutouts: Cut-out photographs; by default those of the Debian package.
        per_image: Questions of each kind about one image, all with different words.

    Raises:
        FileNotFoundError: The source needs cutouts, which are not installed.
        ImportError: The source needs a package that is not installed.
        ValueError: The source or a kind is unknown, `per_kind` is below 1, `per_image` is above 1
            for clips, or images of this source have no question of a kind.
    """
    if source not in SOURCES:
        raise ValueError(f"There is no source {source!r}: choose from {', '.join(SOURCES)}.")
    known = CLIP_KINDS if source == "clips" else KINDS
    if unknown := sorted(set(kinds) - set(known)):
        raise ValueError(
            f"There is no kind of question {unknown[0]!r} about {source}: choose from "
            f"{', '.join(known)}."
        )
    if per_kind < 1:
        raise ValueError(f"per_kind must be at least 1, but it is {per_kind}.")
    if source == "clips":
        if per_image > 1:
            raise ValueError("Clips have one question of each kind: leave per_image at 1.")
        return _clip_samples(kinds, per_kind, seed, split)
    return _scene_samples(kinds, per_kind, seed, scene_maker(source, split, cutouts), per_image)


def scene_maker(source: str, split: str, cutouts: Cutouts | None) -> Callable[[int], ObjectScene]:
    """The function from a number to a scene of a source; arguments as for `object_samples`."""
    if source == "rendered":
        return partial(make_rendered_scene, split=split)
    if source in ("photographs", "held-out-photographs"):
        split = HELD_OUT if source == "held-out-photographs" else split
        return partial(make_photographed_scene, split=split, cutouts=cutouts or Cutouts())
    artists = (HELD_OUT_ARTIST,) if source == "held-out-artist" else TRAIN_ARTISTS
    return partial(make_drawn_scene, split=split, artists=artists)


def _scene_samples(
    kinds: Sequence[str],
    per_kind: int,
    seed: int,
    make: Callable[[int], ObjectScene],
    per_image: int,
) -> list[Sample]:
    samples: list[Sample] = []
    missing = dict.fromkeys(kinds, per_kind)
    number = seed
    while wanted := [kind for kind, count in missing.items() if count > 0]:
        if number - seed > _MAX_SCENES_PER_QUESTION * per_kind:
            raise ValueError(f"Images of this source have no question of the kind {wanted[0]!r}.")
        scene = make(number)
        asked = Counter[str]()
        tries = per_image if per_image == 1 else _TRIES * per_image
        questions = scene_questions(scene, wanted, seed=number, per_kind=tries)
        for question in {question.text: question for question in questions}.values():
            if asked[question.kind] < min(per_image, missing[question.kind]):
                asked[question.kind] += 1
                samples.append(_sample(scene, question))
        missing = {kind: count - asked[kind] for kind, count in missing.items()}
        number += 1
    return samples


def _clip_samples(kinds: Sequence[str], per_kind: int, seed: int, split: str) -> list[Sample]:
    samples = []
    for number in range(seed, seed + per_kind):
        clip = make_object_clip(number, split)
        for question in clip_questions(clip, kinds, seed=number):
            samples.append(
                Sample(
                    modality="video",
                    visuals=(tuple(clip.images),),
                    question=question.text,
                    answer=question.answer,
                    kind=question.kind,
                    relevant_boxes=question.relevant_boxes,
                    relevant_frames=question.relevant_frames,
                )
            )
    return samples


def _sample(scene: ObjectScene, question: Question) -> Sample:
    return Sample(
        modality="image",
        visuals=(scene.image,),
        question=question.text,
        answer=question.answer,
        kind=question.kind,
        relevant_boxes=question.relevant_boxes,
    )
