"""Questions about composed scenes and clips, which the tiny models know, for `collect`.

The images come from a stream of their own, split "mapper", which is used by nothing but the
training of mappers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .scenes import (
    CLIP_KINDS,
    KINDS,
    check_kinds,
    clip_questions,
    make_clip,
    make_scene,
    scene_questions,
)
from .sources import SampleSource, TrainingSample


class ComposedSource(SampleSource):
    """What scenes and clips share: sample `i` asks one question of kind `i` about image `i`.

    Args:
        name: What `describe` calls the source.
        count: Number of questions.
        kinds: Kinds of questions, asked in turn; by default all that are known.
        known: Kinds of questions that there are.
        seed: Number of the first image.
        options: Of `make_scene` or `make_clip`.

    Raises:
        ValueError: A kind is unknown.
    """

    def __init__(
        self,
        name: str,
        count: int,
        kinds: Sequence[str] | None,
        known: Sequence[str],
        seed: int,
        options: dict[str, Any],
    ) -> None:
        kinds = kinds or known
        check_kinds(kinds, known)
        self._name, self._count, self._kinds = name, count, list(kinds)
        self._seed, self._options = seed, options

    def __len__(self) -> int:
        return self._count

    def number_and_kind(self, index: int) -> tuple[int, str]:
        """Number of the image, and kind of the question, of a sample."""
        return self._seed + index, self._kinds[index % len(self._kinds)]

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "source": self._name,
            "samples": self._count,
            "kinds": self._kinds,
            "seed": self._seed,
            **self._options,
        }


class SceneSource(ComposedSource):
    """Questions about composed scenes.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions; by default all.
        seed: Number of the first scene.
        rows: Rows of cells.
        columns: Columns of cells.
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
        options: dict[str, Any] = {"rows": rows, "columns": columns, "split": split}
        super().__init__("scenes", count, kinds, KINDS, seed, options)
        # Boards that there cannot be are told here, rather than once a sample.
        make_scene(seed, **options)

    def __getitem__(self, index: int) -> TrainingSample:
        number, kind = self.number_and_kind(index)
        scene = make_scene(number, **self._options)
        questions = scene_questions(scene, kinds=[kind], seed=number)
        if not questions:
            raise ValueError(f"scene {number} allows no question of the kind {kind}")
        return TrainingSample("image", (scene.image,), questions[0].text, questions[0].answer)


class ClipSource(ComposedSource):
    """Questions about composed clips.

    Args:
        count: Number of questions, spread evenly over the kinds.
        kinds: Kinds of questions; by default all that clips allow.
        frames: Scenes of every clip.
        hold: Frames for which each scene is shown.
        seed: Number of the first clip.
        rows: Rows of cells.
        columns: Columns of cells.
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
        hold: int = 1,
        seed: int = 0,
        rows: int = 4,
        columns: int = 4,
        split: str = "mapper",
    ) -> None:
        options: dict[str, Any] = {
            "frames": frames,
            "rows": rows,
            "columns": columns,
            "split": split,
            "hold": hold,
        }
        super().__init__("clips", count, kinds, CLIP_KINDS, seed, options)
        # Boards that there cannot be are told here, rather than once a sample.
        make_clip(seed, **options)

    def __getitem__(self, index: int) -> TrainingSample:
        number, kind = self.number_and_kind(index)
        clip = make_clip(number, **self._options)
        (question,) = clip_questions(clip, [kind], seed=number)
        return TrainingSample("video", (clip.images,), question.text, question.answer)
