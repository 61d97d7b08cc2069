"""Short videos of scenes, and questions whose answer lies in one of their frames.

No two cells of a clip show the same thing, and all tiles of a frame have a colour that no other
frame of the clip has. A clip is a function of its arguments alone, as a scene is.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...checks import check_count
from .drawings import Drawings, load_drawings
from .questions import Question, ask, check_kinds
from .scene import CELL_SIZE, COLOURS, Scene, check_board, choose, draw_cells
from .surfaces import background

CLIP_TEMPLATES: dict[str, tuple[str, ...]] = {
    "during": (
        "What is at row {row}, column {column} while the tiles are {colour}?",
        "Which thing is in row {row}, column {column} while the tiles are {colour}?",
    ),
    "first": (
        "What is at row {row}, column {column} at the start?",
        "Which thing is in row {row}, column {column} at the start?",
    ),
    "last": (
        "What is at row {row}, column {column} at the end?",
        "Which thing is in row {row}, column {column} at the end?",
    ),
}
"""Phrasings of the kinds of questions that only a clip allows."""

CLIP_KINDS: tuple[str, ...] = (*CLIP_TEMPLATES, "colour", "letter")
"""Kinds of questions about a clip; those of `KINDS` are about a thing that one frame shows."""


@dataclass(frozen=True)
class Clip:
    """A short video and what is in it.

    Attributes:
        frames: Scenes of one shape, in order of time.
        frames_per_scene: Frames of the video for which each scene is shown.
    """

    frames: list[Scene]
    frames_per_scene: int = 1

    @property
    def images(self) -> list[Image.Image]:
        """The images of the video: each scene's, `frames_per_scene` times."""
        return [frame.image for frame in self.frames for _ in range(self.frames_per_scene)]


def make_clip(
    seed: int,
    frames: int = 4,
    rows: int = 4,
    columns: int = 4,
    split: str = "test",
    drawings: Drawings | None = None,
    frames_per_scene: int = 1,
) -> Clip:
    """Compose one clip.

    Args:
        seed: Number of the clip in its split, at least 0.
        frames: Scenes, 1 to 8.
        rows: Rows of every frame, 1 to 8.
        columns: Columns of every frame, 1 to 8.
        split: Name of a split; every split is a stream of clips of its own.
        drawings: Where drawings come from; by default those that come with the library.
        frames_per_scene: Frames of the video for which each scene is shown, at least 1. It
            changes nothing else: a clip is the same at any length.

    Raises:
        ValueError: An argument is out of range, or there are fewer concepts than cells in all
            frames together.
    """
    if not 1 <= frames <= len(COLOURS):
        raise ValueError(f"frames must be 1 to {len(COLOURS)}, but it is {frames}.")
    check_count("frames_per_scene", frames_per_scene, at_least=1)
    drawings = load_drawings() if drawings is None else drawings
    cells = rows * columns
    check_board(rows, columns, frames * cells, drawings)
    rng = np.random.default_rng([zlib.crc32(f"clip {split}".encode()), seed, frames, rows, columns])
    names = choose(rng, drawings.drawn_names, frames * cells)
    scenes = []
    for number, colour in enumerate(choose(rng, COLOURS, frames)):
        image = background(rng, columns * CELL_SIZE, rows * CELL_SIZE)
        own = names[number * cells : (number + 1) * cells]
        scenes.append(draw_cells(rng, image, columns, own, drawings, colour))
    return Clip(scenes, frames_per_scene)


def ask_clip(clip: Clip, kind: str, rng: np.random.Generator) -> Question:
    """Ask one question of a kind about a random cell.

    Its relevant frames are all those of the video that show the cell.

    Raises:
        ValueError: `kind` is unknown.
    """
    check_kinds([kind], CLIP_KINDS)
    last = len(clip.frames) - 1
    number = {"first": 0, "last": last}.get(kind, int(rng.integers(last + 1)))
    frame = clip.frames[number]
    cell = frame.cells[rng.integers(len(frame.cells))]
    shown_in = tuple(range(number * clip.frames_per_scene, (number + 1) * clip.frames_per_scene))
    boxes = (cell.box,) * clip.frames_per_scene
    if kind not in CLIP_TEMPLATES:
        asked = ask(frame, kind, rng, cell)
        assert asked is not None  # every cell allows these kinds
        return dataclasses.replace(asked, relevant_boxes=boxes, relevant_frames=shown_in)
    templates = CLIP_TEMPLATES[kind]
    text = templates[rng.integers(len(templates))].format(
        row=cell.row, column=cell.column, colour=cell.colour
    )
    return Question(kind, text, cell.name, boxes, shown_in)


def clip_questions(clip: Clip, kinds: Sequence[str] = CLIP_KINDS, seed: int = 0) -> list[Question]:
    """Ask a question of each kind; the same arguments give the same questions.

    Raises:
        ValueError: A kind is unknown.
    """
    rng = np.random.default_rng(seed)
    return [ask_clip(clip, kind, rng) for kind in kinds]
