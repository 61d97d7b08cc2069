"""Questions about composed images and clips, for `collect` and `evaluate`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import check_options
from .errors import CommandError

if TYPE_CHECKING:
    from ..data.sample import Sample
    from ..data.sources import SampleSource

SCENES = "Composed images and clips"


@dataclass(frozen=True)
class SceneOptions:
    """Which images or clips are composed."""

    per_kind: int = field(
        default=300, metadata={"help": "Questions of each kind.", "interval": "[1, inf)"}
    )
    rows: int = field(
        default=4, metadata={"help": "Grid rows of an image.", "interval": "[1, inf)"}
    )
    columns: int = field(
        default=4, metadata={"help": "Grid columns of an image.", "interval": "[1, inf)"}
    )
    clip_frames: int | None = field(
        default=None,
        metadata={
            "help": "Scenes of a clip. evaluate asks about clips if it is given.",
            "interval": "[1, inf)",
        },
    )
    frames_per_scene: int = field(
        default=1,
        metadata={"help": "Frames that show each scene of a clip.", "interval": "[1, inf)"},
    )
    drawings: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with drawings other than those that come with the library.",
            "metavar": "FOLDER",
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Number of the first image or clip.", "interval": "[0, inf)"}
    )

    def __post_init__(self) -> None:
        check_options(self)

    def samples(self, kinds: Sequence[str]) -> list[Sample]:
        """For each image or clip one question of each kind, for `evaluate`.

        Args:
            kinds: Kinds of questions; all if it is empty.

        Raises:
            ValueError: There is no such kind, or such images cannot be composed.
        """
        from ..data.composed import clip_samples, scene_samples
        from ..data.scenes import CLIP_KINDS, KINDS, check_kinds, load_drawings

        known = KINDS if self.clip_frames is None else CLIP_KINDS
        check_kinds(kinds, known)
        options: dict[str, Any] = {
            "seed": self.seed,
            "rows": self.rows,
            "columns": self.columns,
            "drawings": None if self.drawings is None else load_drawings(self.drawings),
        }
        if self.clip_frames is None:
            return scene_samples(kinds or known, self.per_kind, **options)
        options |= {"frames": self.clip_frames, "frames_per_scene": self.frames_per_scene}
        return clip_samples(kinds or known, self.per_kind, **options)

    def source(self, scenes: int | None, clips: int | None, kinds: Sequence[str]) -> SampleSource:
        """One question about each image or clip, for `collect`.

        Args:
            scenes: Number of images; None for clips.
            clips: Number of clips.
            kinds: Kinds of questions; all if it is empty.

        Raises:
            ValueError: There is no such kind, or such images cannot be composed.
        """
        from ..data.composed import ClipSource, SceneSource

        options: dict[str, Any] = {
            "kinds": kinds or None,
            "seed": self.seed,
            "rows": self.rows,
            "columns": self.columns,
        }
        if scenes is not None:
            return SceneSource(scenes, **options)
        assert clips is not None
        if self.clip_frames is not None:
            options["frames"] = self.clip_frames
        return ClipSource(clips, frames_per_scene=self.frames_per_scene, **options)


def scene_options(given: Mapping[str, Any], *, composed: bool, clips: bool) -> SceneOptions:
    """The options of composed questions.

    Args:
        given: Those that the user gave.
        composed: Whether the questions are composed.
        clips: Whether they are about clips.

    Raises:
        CommandError: An option has no effect.
    """
    if not composed:
        _refuse(given, given, "composed questions, not about your own")
    if not clips:
        _refuse(given, ("clip_frames", "frames_per_scene"), "clips, not about images")
    return SceneOptions(**given)


def _refuse(given: Mapping[str, Any], names: Collection[str], about: str) -> None:
    for name in names:
        if name in given:
            raise CommandError(
                f"--{name.replace('_', '-')} is about {about}: leave it out.", exit_code=2
            )
