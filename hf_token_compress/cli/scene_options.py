"""Questions about composed images and clips, for `collect` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import check_options
from .errors import CommandError

if TYPE_CHECKING:
    from ..data.sample import Sample

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
            "help": "Scenes per clip.",
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

    def layout(self, *, clips: bool) -> dict[str, Any]:
        """Seed and sizes, as the functions of `hf_token_compress.data.composed` take them."""
        found = {"seed": self.seed, "rows": self.rows, "columns": self.columns}
        if clips:
            found["frames_per_scene"] = self.frames_per_scene
            if self.clip_frames is not None:
                found["frames"] = self.clip_frames
        return found

    def samples(self, kinds: Sequence[str]) -> list[Sample]:
        """For each image or clip one question of each kind, for `evaluate`.

        Args:
            kinds: Kinds of questions; all if it is empty.

        Raises:
            ValueError: There is no such kind, or such images cannot be composed.
        """
        from ..data.composed import clip_samples, scene_samples
        from ..data.scenes import CLIP_KINDS, KINDS, check_kinds, load_drawings

        clips = self.clip_frames is not None
        known, compose = (CLIP_KINDS, clip_samples) if clips else (KINDS, scene_samples)
        check_kinds(kinds, known)
        drawings = None if self.drawings is None else load_drawings(self.drawings)
        layout = self.layout(clips=clips)
        return compose(kinds or known, self.per_kind, drawings=drawings, **layout)


def scene_options(
    given: Mapping[str, Any], *, composed: bool, clips: bool, remedy: str = "give --clip-frames too"
) -> SceneOptions:
    """The options that the user gave for composed questions, about clips or images.

    Args:
        given: The options.
        composed: Whether the questions are composed.
        clips: Whether they are about clips.
        remedy: What to do about an option of clips where they are not.

    Raises:
        CommandError: An option has no effect.
    """
    for name in given:
        if not composed:
            message = "composed questions, not about your own: leave it out"
        elif name in ("clip_frames", "frames_per_scene") and not clips:
            message = f"clips, not about images: {remedy}"
        else:
            continue
        raise CommandError(f"--{name.replace('_', '-')} is about {message}.", exit_code=2)
    return SceneOptions(**given)
