"""Which composed images or clips `collect` and `evaluate` ask about."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..options import check_options


@dataclass(frozen=True)
class SceneOptions:
    """The composed images or clips, and the questions about them."""

    kind: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Kinds of questions, separated by commas. By default all.",
            "metavar": "KINDS",
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Number of the first image or clip.", "interval": "[0, inf)"}
    )
    rows: int = field(default=4, metadata={"help": "Grid rows of an image."})
    columns: int = field(default=4, metadata={"help": "Grid columns of an image."})
    clip_frames: int | None = field(
        default=None, metadata={"help": "Scenes of a clip.", "interval": "[1, inf)"}
    )
    frames_per_scene: int = field(
        default=1,
        metadata={"help": "Frames that show each scene of a clip.", "interval": "[1, inf)"},
    )

    def __post_init__(self) -> None:
        check_options(self)
