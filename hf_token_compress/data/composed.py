"""Questions about composed scenes and clips, which the tiny models know.

`SceneSource` and `ClipSource` ask one question about each image, for `collect`: by default from the
split "mapper", which is used for nothing but the training of mappers. `scene_samples` and
`clip_samples` ask several about each, for `evaluate`: by default from the split "test", which
training never used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def composed_sample(visual: Scene | Clip, question: Question) -> Sample:
    """A question about a composed scene or clip."""
    shown = tuple(visual.images) if isinstance(visual, Clip) else visual.image
    return Sample(
        "video" if isinstance(visual, Clip) else "image",
        (shown,),
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
        scene = make_scene(number, rows, columns, split=split, drawings=drawings)
        for question in scene_questions(scene, kinds=wanted, seed=number):
            missing[question.kind] -= 1
            last_asked[question.kind] = number
            samples.append(composed_sample(scene, question))
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
        asked = clip_questions(clip, kinds, seed=number)
        samples += [composed_sample(clip, question) for question in asked]
    return samples


class _ComposedSource(SampleSource):
    """Sample `i` asks a question of kind `i`, the kinds taken in turn, about image `seed + i`."""

    name: str
    known: Sequence[str]
    make: Callable[..., Any]
    ask: Callable[..., list[Question]]

    def __init__(
        self, count: int, kinds: Sequence[str] | None, seed: int, **options: int | str
    ) -> None:
        self._count, self._kinds, self._seed = count, list(kinds or self.known), seed
        self._options = options
        check_kinds(self._kinds, self.known)
        self.make(seed, **options)  # fail early on sizes that cannot be composed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        number, kind = self._seed + index, self._kinds[index % len(self._kinds)]
        visual = self.make(number, **self._options)
        questions = self.ask(visual, kinds=[kind], seed=number)
        if not questions:
            raise ValueError(f"scene {number} allows no question of the kind {kind}")
        return composed_sample(visual, questions[0])

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        own = {"samples": self._count, "kinds": self._kinds, "seed": self._seed}
        return {"source": self.name, **own, **self._options}


class SceneSource(_ComposedSource):
    """One question about each of several composed scenes.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions, asked in turn; by default all.
        seed: Number of the first scene.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of scenes.

    Raises:
        ValueError: A kind is unknown, or no such scene can be composed.
    """

    name, known = "scenes", KINDS
    make, ask = staticmethod(make_scene), staticmethod(scene_questions)

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
        super().__init__(count, kinds, seed, rows=rows, columns=columns, split=split)


class ClipSource(_ComposedSource):
    """One question about each of several composed clips.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions, asked in turn; by default all that clips allow.
        frames: Scenes of every clip.
        frames_per_scene: Frames for which each scene is shown.
        seed: Number of the first clip.
        rows: Grid rows of cells.
        columns: Grid columns of cells.
        split: Stream of clips.

    Raises:
        ValueError: A kind is unknown, or no such clip can be composed.
    """

    name, known = "clips", CLIP_KINDS
    make, ask = staticmethod(make_clip), staticmethod(clip_questions)

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
        size: dict[str, Any] = {"frames": frames, "rows": rows, "columns": columns}
        super().__init__(count, kinds, seed, **size, split=split, frames_per_scene=frames_per_scene)

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        found = super().describe()
        found["hold"] = found.pop("frames_per_scene")  # as collections on disk call it
        return found
