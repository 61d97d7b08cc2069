"""The questions of `hf-token-compress evaluate`: composed ones, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import counting, notices, quiet_libraries
from .errors import CommandError, wrong_arguments

if TYPE_CHECKING:
    from ..data.sources import SampleSource
    from ..evaluation import Questions, Sample

_MOST_NAMED = 5


@dataclass(frozen=True)
class Boards:
    """Composed questions: what the user may choose about them.

    Attributes:
        per_kind: Questions of each kind.
        rows: Grid rows of drawings.
        columns: Grid columns of drawings.
        clip_frames: Boards of a clip; None for images.
        clip_hold: Frames for which a clip shows each of its boards.
        drawings: Folder with drawings other than the library's.
        seed: Number of the first image.
    """

    per_kind: int = 300
    rows: int = 4
    columns: int = 4
    clip_frames: int | None = None
    clip_hold: int = 1
    drawings: Path | None = None
    seed: int = 0

    def questions(self, kinds: Sequence[str]) -> list[Sample]:
        """Compose the questions of these kinds, or of all.

        Raises:
            CommandError: There is no such kind.
            ValueError: Such images cannot be composed.
        """
        from ..data.scenes import CLIP_KINDS, KINDS, check_kinds, load_drawings
        from ..evaluation import clip_samples, scene_samples

        known = KINDS if self.clip_frames is None else CLIP_KINDS
        with wrong_arguments():
            check_kinds(kinds, known)
        options: dict[str, Any] = {
            "seed": self.seed,
            "rows": self.rows,
            "columns": self.columns,
            "drawings": None if self.drawings is None else load_drawings(self.drawings),
        }
        if self.clip_frames is None:
            return scene_samples(kinds or known, self.per_kind, **options)
        options |= {"frames": self.clip_frames, "frames_per_scene": self.clip_hold}
        return clip_samples(kinds or known, self.per_kind, **options)


def boards_of(given: Mapping[str, Any], data: Path | None, frames: int | None) -> Boards:
    """The user's choice of composed questions.

    Args:
        given: The options by name; None for those that are not given.
        data: The user's own questions, which need none of the options.
        frames: The option `--frames`, which only they need.

    Raises:
        CommandError: Options exclude each other.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if data is not None and chosen:
        option = next(iter(chosen)).replace("_", "-")
        raise CommandError(
            f"--{option} is about composed questions, not about those of --data: leave one of them "
            "out.",
            exit_code=2,
        )
    if data is None and frames is not None:
        raise CommandError("--frames is about the videos of --data: give --data too.", exit_code=2)
    if "clip_hold" in chosen and "clip_frames" not in chosen:
        raise CommandError("--clip-hold is about clips: give --clip-frames too.", exit_code=2)
    return Boards(**chosen)


def read_questions(
    source: SampleSource, processor: Any, kinds: Sequence[str], frames: int | None
) -> Questions:
    """The user's own questions; those that cannot be asked are counted and named on stderr.

    Raises:
        ValueError: There is no question of a kind, or none that can be asked.
    """
    from ..evaluation import Questions

    with quiet_libraries(progress_bars=False), counting("Reading", len(source)) as done:
        questions = Questions(source, processor, kinds=kinds, num_frames=frames, after_sample=done)
    if questions.left_out:
        named = [f"sample {item.number}, {item.reason}" for item in questions.left_out]
        more = "; …" if len(named) > _MOST_NAMED else ""
        notices().print(
            Text(
                f"{len(named)} of {len(source)} questions are left out: "
                f"{'; '.join(named[:_MOST_NAMED])}{more}",
                style="yellow",
            ),
            soft_wrap=True,
        )
    return questions
