"""Random grid shapes, scenes and questions for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from hf_token_compress.data.scenes import (
    CELL_SIZE,
    COLOURS,
    LETTERS,
    Cell,
    Clip,
    Question,
    Scene,
    ask,
    ask_clip,
)
from hf_token_compress.data.scenes.drawings import load_drawings

SHAPES: dict[tuple[int, int], float] = {
    (4, 4): 0.46,
    (4, 5): 0.06,
    (5, 4): 0.06,
    (3, 6): 0.04,
    (6, 3): 0.04,
    (5, 5): 0.05,
    (4, 6): 0.04,
    (6, 4): 0.04,
    (6, 6): 0.07,
    (5, 8): 0.04,
    (8, 5): 0.04,
    (8, 8): 0.06,
}
"""Rows and columns of training grids, with the probability of each shape."""

MIXTURE: dict[str, float] = {
    "place": 3.0,
    "colour": 2.0,
    "letter": 2.0,
    "lettered": 2.0,
    "where": 2.0,
    "presence": 1.0,
    "relation": 2.0,
}
"""Relative frequency of each kind of question in training."""


CLIP_MIXTURE: dict[str, float] = {
    "during": 4.0,
    "first": 2.0,
    "last": 2.0,
    "colour": 1.0,
    "letter": 1.0,
}
"""Relative frequency of each kind of question about clips in training."""


CURRICULUM: tuple[tuple[int, int], ...] = ((300, 2), (600, 3))
"""Pairs (update, side): before this update of the warm-up, grids have at most this side."""


def random_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Draw rows and columns of a training grid."""
    shapes = list(SHAPES)
    weights = np.asarray(list(SHAPES.values()))
    return shapes[rng.choice(len(shapes), p=weights / weights.sum())]


def curriculum_shape(rng: np.random.Generator, step: int) -> tuple[int, int]:
    """Draw a shape for update `step` of the language warm-up; small grids come first."""
    for until, side in CURRICULUM:
        if step < until:
            return int(rng.integers(side - 1, side + 1)), side
    return random_shape(rng)


def random_scene(rng: np.random.Generator, rows: int, columns: int) -> Scene:
    """A scene whose image is one blank pixel, for the language warm-up."""
    names = load_drawings().names
    chosen = rng.choice(len(names), rows * columns, replace=False)
    letters = rng.permutation(len(LETTERS) * 3)[: rows * columns] % len(LETTERS)
    colours = rng.integers(len(COLOURS), size=rows * columns)
    cells = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        left, top = column * CELL_SIZE, row * CELL_SIZE
        box = (left, top, left + CELL_SIZE, top + CELL_SIZE)
        half = CELL_SIZE // 2
        x, y = left + half * int(rng.integers(2)), top + half * int(rng.integers(2))
        cells.append(
            Cell(
                row + 1,
                column + 1,
                names[chosen[number]],
                "none",
                list(COLOURS)[colours[number]],
                LETTERS[letters[number]],
                box,
                badge=(x, y, x + half, y + half),
            )
        )
    return Scene(Image.new("RGB", (1, 1)), rows, columns, cells)


def random_questions(
    scene: Scene, count: int, rng: np.random.Generator, mixture: Mapping[str, float] = MIXTURE
) -> list[Question]:
    """Ask up to `count` questions about one scene, with kinds drawn from the mixture."""
    asked = (ask(scene, kind, rng) for kind in _random_kinds(mixture, count, rng))
    return [question for question in asked if question is not None]


def random_clip_questions(
    clip: Clip, count: int, rng: np.random.Generator, mixture: Mapping[str, float] = CLIP_MIXTURE
) -> list[Question]:
    """Ask `count` questions about one clip, with kinds drawn from the mixture."""
    return [ask_clip(clip, kind, rng) for kind in _random_kinds(mixture, count, rng)]


def _random_kinds(mixture: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    kinds: Sequence[str] = list(mixture)
    weights = np.asarray(list(mixture.values()))
    return [kinds[index] for index in rng.choice(len(kinds), count, p=weights / weights.sum())]
