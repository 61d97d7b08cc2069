"""Questions about composed scenes and clips, which the tiny models know.

`SceneSource` and `ClipSource` ask one question about each image, for `collect`: by default from the
split "mapper", which is used for nothing but the training of mappers. `scene_samples` and
`clip_samples` ask several about each, for `evaluate`: by default from the split "test", which
training never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_count
from .sample import Sample
from .scenes import (
    CLIP_KINDS,
    KINDS,
    Clip,
    Drawings,
    Question,
    Scene,
    check_kinds,
    clip_questions,
    make_clip,
    make_scene,
    scene_questions,
)
from .sources import SampleSource

_MOST_SCENES_FOR_ONE = 20


def scene_sample(scene: Scene, question: Question) -> Sample:
    """A question about a scene."""
    return Sample(
        "image",
        (scene.image,),
        question.text,
        question.answer,
        question.kind,
        question.relevant_boxes,
    )


def clip_sample(clip: Clip, question: Question) -> Sample:
    """A question about a clip."""
    return Sample(
        "video",
        (tuple(clip.images),),
        question.text,
        question.answer,
        question.kind,
        question.relevant_boxes,
        question.relevant_frames,
    )


def scene_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    seed: int = 0,
    rows: int = 4,
    columns: int = 4,
    split: str = "test",
    drawings: Drawings | None = None,
) -> list[Sample]:
    """Questions about composed scenes, each scene asked one question of each kind.

    The same arguments give the same samples. Scenes that allow no question of a kind are skipped
    for that kind.

    Args:
        kinds: Kinds of questions, of `hf_token_compress.data.scenes.KINDS`.
        per_kind: Questions of each kind.
        seed: Seed of the first scene; the next scenes follow it.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of scenes.
        drawings: The drawings; by default those that come with the library.

    Raises:
        ValueError: A kind is unknown, `per_kind` is below 1, or scenes of this size allow no
            question of a kind.
    """
    check_count("per_kind", per_kind, at_least=1)
    samples: list[Sample] = []
    missing = dict.fromkeys(kinds, per_kind)
    last_asked = dict.fromkeys(kinds, seed)
    number = seed
    while wanted := [kind for kind, count in missing.items() if count > 0]:
        scene = make_scene(number, rows=rows, columns=columns, split=split, drawings=drawings)
        for question in scene_questions(scene, kinds=wanted, seed=number):
            missing[question.kind] -= 1
            last_asked[question.kind] = number
            samples.append(scene_sample(scene, question))
        for kind in wanted:
            if number - last_asked[kind] >= _MOST_SCENES_FOR_ONE:
                raise ValueError(
                    f"Images of {rows} x {columns} drawings allow no question of the kind "
                    f"{kind!r}: leave that kind out, or choose other numbers of rows and columns."
                )
        number += 1
    return samples


def clip_samples(
    kinds: Sequence[str],
    per_kind: int,
    *,
    frames: int = 4,
    frames_per_scene: int = 1,
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
        frames_per_scene: Frames for which each scene is shown.
        seed: Seed of the first clip; the next clips follow it.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of clips.
        drawings: The drawings; by default those that come with the library.

    Raises:
        ValueError: A kind is unknown, `per_kind` is below 1, or there are fewer concepts than
            cells in all frames of a clip.
    """
    check_count("per_kind", per_kind, at_least=1)
    samples: list[Sample] = []
    for number in range(seed, seed + per_kind):
        clip = make_clip(number, frames, rows, columns, split, drawings, frames_per_scene)
        samples += [clip_sample(clip, item) for item in clip_questions(clip, kinds, seed=number)]
    return samples


class ComposedSource(SampleSource):
    """What scenes and clips share: sample `i` asks one question of kind `i` about image `i`.

    Args:
        count: Number of questions.
        kinds: Kinds of questions, asked in turn; by default all that are known.
        known: Kinds of questions that there are.
        seed: Number of the first image.

    Raises:
        ValueError: A kind is unknown.
    """

    def __init__(
        self, count: int, kinds: Sequence[str] | None, known: Sequence[str], seed: int
    ) -> None:
        kinds = kinds or known
        check_kinds(kinds, known)
        self._count, self._kinds, self._seed = count, list(kinds), seed

    def __len__(self) -> int:
        return self._count

    def number_and_kind(self, index: int) -> tuple[int, str]:
        """Number of the image, and kind of the question, of a sample."""
        return self._seed + index, self._kinds[index % len(self._kinds)]

    def describe(self) -> dict[str, Any]:
        """Number, kinds and seed."""
        return {"samples": self._count, "kinds": self._kinds, "seed": self._seed}


class SceneSource(ComposedSource):
    """Questions about composed scenes.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions; by default all.
        seed: Number of the first scene.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of scenes.

    Raises:
        ValueError: A kind is unknown, or no such scene can be composed.
    """

    def __init__(
        self,
        count: int,
        *,
        kinds: Sequence[str] | None = None,
        seed: int = 0,
        rows: int = 4,
        columns: int = 4,
        split: str = "mapper",
    ) -> None:
        super().__init__(count, kinds, KINDS, seed)
        self._options: dict[str, Any] = {"rows": rows, "columns": columns, "split": split}
        make_scene(seed, **self._options)  # fail early on sizes that cannot be composed

    def __getitem__(self, index: int) -> Sample:
        number, kind = self.number_and_kind(index)
        scene = make_scene(number, **self._options)
        questions = scene_questions(scene, kinds=[kind], seed=number)
        if not questions:
            raise ValueError(f"scene {number} allows no question of the kind {kind}")
        return scene_sample(scene, questions[0])

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        return {"source": "scenes", **super().describe(), **self._options}


class ClipSource(ComposedSource):
    """Questions about composed clips.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions; by default all that clips allow.
        frames: Scenes of every clip.
        frames_per_scene: Frames for which each scene is shown.
        seed: Number of the first clip.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of clips.

    Raises:
        ValueError: A kind is unknown, or no such clip can be composed.
    """

    def __init__(
        self,
        count: int,
        *,
        kinds: Sequence[str] | None = None,
        frames: int = 4,
        frames_per_scene: int = 1,
        seed: int = 0,
        rows: int = 4,
        columns: int = 4,
        split: str = "mapper",
    ) -> None:
        super().__init__(count, kinds, CLIP_KINDS, seed)
        self._options: dict[str, Any] = {
            "frames": frames,
            "rows": rows,
            "columns": columns,
            "split": split,
        }
        self._frames_per_scene = frames_per_scene
        self._clip(seed)  # fail early on sizes that cannot be composed

    def __getitem__(self, index: int) -> Sample:
        number, kind = self.number_and_kind(index)
        clip = self._clip(number)
        (question,) = clip_questions(clip, [kind], seed=number)
        return clip_sample(clip, question)

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        # Collections on disk call the last one "hold".
        own = {**self._options, "hold": self._frames_per_scene}
        return {"source": "clips", **super().describe(), **own}

    def _clip(self, number: int) -> Clip:
        return make_clip(number, frames_per_scene=self._frames_per_scene, **self._options)
