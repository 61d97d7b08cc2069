"""Questions about pictures of things, as evaluation takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import Question
from lab.testbed.objects.clips import make_things_clip
from lab.testbed.objects.cutouts import HELD_OUT, Stamps
from lab.testbed.objects.drawn import (
    HELD_OUT_ARTIST,
    TRAIN_ARTISTS,
    make_drawn_picture,
)
from lab.testbed.objects.photographed import make_photographed_picture
from lab.testbed.objects.picture import Picture
from lab.testbed.objects.questions import (
    CLIP_KINDS,
    KINDS,
    clip_questions,
    picture_questions,
)
from lab.testbed.objects.rendered import make_rendered_picture

ThingsSource = Literal[
    "drawings", "held-out-artist", "photographs", "held-out-photographs", "rendered", "clips"
]
"""Where pictures come from; the held-out ones show drawings or photographs of no training."""

SOURCES: tuple[str, ...] = get_args(ThingsSource)

_MOST_PICTURES_FOR_ONE = 200


def things_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    source: str = "drawings",
    seed: int = 0,
    split: str = "test",
    stamps: Stamps | None = None,
) -> list[Sample]:
    """Questions about pictures or clips, each asked at most one question of each kind.

    The same arguments give the same samples; a picture that allows no question of a kind is passed
    over for that kind.

    Args:
        kinds: Kinds of questions: of `KINDS`, or of `CLIP_KINDS` for clips.
        per_kind: Questions of each kind, at least 1.
        source: One of `SOURCES`.
        seed: Number of the first picture; the next ones follow it.
        split: "test" for pictures that training never used.
        stamps: The cut-outs of photographs; by default those of the Debian package.

    Raises:
        FileNotFoundError: Photographs are asked for and their stamps are not installed.
        ImportError: A package that pictures of this source need is not installed.
        ValueError: The source or a kind is unknown, `per_kind` is below 1, or pictures of this
            source allow no question of a kind.
    """
    if source not in SOURCES:
        raise ValueError(f"There is no source {source!r}: choose of {', '.join(SOURCES)}.")
    known = CLIP_KINDS if source == "clips" else KINDS
    if unknown := sorted(set(kinds) - set(known)):
        raise ValueError(
            f"There is no kind of question {unknown[0]!r} about {source}: choose of "
            f"{', '.join(known)}."
        )
    if per_kind < 1:
        raise ValueError(f"per_kind must be at least 1, but it is {per_kind}.")
    if source == "clips":
        return _clip_samples(kinds, per_kind, seed, split)
    return _picture_samples(kinds, per_kind, seed, picture_maker(source, split, stamps))


def picture_maker(source: str, split: str, stamps: Stamps | None) -> Callable[[int], Picture]:
    """From a number to a picture of a source; arguments as for `things_samples`."""
    if source == "rendered":
        return partial(make_rendered_picture, split=split)
    if source in ("photographs", "held-out-photographs"):
        split = HELD_OUT if source == "held-out-photographs" else split
        return partial(make_photographed_picture, split=split, stamps=stamps or Stamps())
    artists = (HELD_OUT_ARTIST,) if source == "held-out-artist" else TRAIN_ARTISTS
    return partial(make_drawn_picture, split=split, artists=artists)


def _picture_samples(
    kinds: Sequence[str], per_kind: int, seed: int, make: Callable[[int], Picture]
) -> list[Sample]:
    samples: list[Sample] = []
    missing = dict.fromkeys(kinds, per_kind)
    number = seed
    while wanted := [kind for kind, count in missing.items() if count > 0]:
        if number - seed > _MOST_PICTURES_FOR_ONE * per_kind:
            raise ValueError(
                f"Pictures of this source allow no question of the kind {wanted[0]!r}."
            )
        picture = make(number)
        for question in picture_questions(picture, wanted, seed=number):
            missing[question.kind] -= 1
            samples.append(_sample(picture, question))
        number += 1
    return samples


def _clip_samples(kinds: Sequence[str], per_kind: int, seed: int, split: str) -> list[Sample]:
    samples = []
    for number in range(seed, seed + per_kind):
        clip = make_things_clip(number, split)
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


def _sample(picture: Picture, question: Question) -> Sample:
    return Sample(
        modality="image",
        visuals=(picture.image,),
        question=question.text,
        answer=question.answer,
        kind=question.kind,
        relevant_boxes=question.relevant_boxes,
    )
