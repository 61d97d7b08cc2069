"""Questions about a scene, their answers, and the boxes that the answers depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .drawings import load_drawings
from .scene import Box, Cell, Scene

RELATIONS: dict[str, tuple[int, int]] = {
    "left of": (0, -1),
    "right of": (0, 1),
    "above": (-1, 0),
    "below": (1, 0),
}
"""Words of a relation, and the step in (row, column) that they stand for."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "place": (
        "What is at row {row}, column {column}?",
        "What do you see at row {row}, column {column}?",
        "Which thing is in row {row}, column {column}?",
        "Name the thing at row {row}, column {column}.",
    ),
    "colour": (
        "Which colour is behind the {name}?",
        "What colour is behind the {name}?",
        "Name the colour behind the {name}.",
        "On which colour is the {name}?",
    ),
    "letter": (
        "Which letter is next to the {name}?",
        "What letter is next to the {name}?",
        "Name the letter next to the {name}.",
        "Which letter does the {name} have?",
    ),
    "lettered": (
        "What is next to the letter {letter}?",
        "Which thing is next to the letter {letter}?",
        "Which thing has the letter {letter}?",
        "Name the thing next to the letter {letter}.",
    ),
    "where": (
        "Where is the {name}?",
        "Where do you see the {name}?",
        "In which row and column is the {name}?",
    ),
    "presence": (
        "Is there {article} {name}?",
        "Do you see {article} {name}?",
        "Is {article} {name} in the picture?",
    ),
    "relation": (
        "What is {relation} the {name}?",
        "Which thing is {relation} the {name}?",
    ),
}
"""Phrasings of every kind of question."""

KINDS: tuple[str, ...] = tuple(TEMPLATES)
"""Every kind of question."""


def check_kinds(kinds: Iterable[str], known: Sequence[str] = KINDS) -> None:
    """Raise unless all these kinds of questions are known.

    Raises:
        ValueError: One is not.
    """
    if unknown := sorted(set(kinds) - set(known)):
        raise ValueError(
            f"There is no kind of question {unknown[0]!r}: choose from {', '.join(known)}."
        )


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        kind: One of `KINDS`.
        text: The question in words.
        answer: The right answer, short, without a full stop.
        relevant_boxes: Pixel boxes (left, top, right, bottom) of the cells that the answer rests
            on; empty for a presence question whose answer is "no".
        relevant_frames: For a question about a clip, the frame of each box, counted from 0.
    """

    kind: str
    text: str
    answer: str
    relevant_boxes: tuple[Box, ...]
    relevant_frames: tuple[int, ...] = ()


# Answers of the kinds that are about one cell.
_ANSWERS = {
    "place": "{name}",
    "colour": "{colour}",
    "letter": "{letter}",
    "lettered": "{name}",
    "where": "row {row}, column {column}",
}


def _ask(scene: Scene, kind: str, cell: Cell, rng: np.random.Generator) -> Question:
    if kind == "presence":
        return _presence(scene, cell, rng)
    if kind == "relation":
        return _relation(scene, cell, rng)
    text, answer = _phrase(kind, rng, **vars(cell)), _ANSWERS[kind].format(**vars(cell))
    return Question(kind, text, answer, (cell.box,))


def _presence(scene: Scene, cell: Cell, rng: np.random.Generator) -> Question:
    present = bool(rng.random() < 0.5)
    name = cell.name
    if not present:
        shown = {other.name for other in scene.cells}
        absent = [other for other in load_drawings().names if other not in shown]
        name = absent[rng.integers(len(absent))]
    article = "an" if name[0] in "aeio" or name == "umbrella" else "a"
    text = _phrase("presence", rng, article=article, name=name)
    return Question("presence", text, *(("yes", (cell.box,)) if present else ("no", ())))


def _relation(scene: Scene, cell: Cell, rng: np.random.Generator) -> Question:
    neighbours = _neighbours(scene, cell)
    relation = list(neighbours)[rng.integers(len(neighbours))]
    neighbour = neighbours[relation]
    text = _phrase("relation", rng, relation=relation, name=cell.name)
    return Question("relation", text, neighbour.name, (cell.box, neighbour.box))


def _phrase(kind: str, rng: np.random.Generator, **words: object) -> str:
    templates = TEMPLATES[kind]
    return templates[rng.integers(len(templates))].format(**words)


def _neighbours(scene: Scene, cell: Cell) -> dict[str, Cell]:
    found = {}
    for relation, (down, across) in RELATIONS.items():
        row, column = cell.row + down, cell.column + across
        if 1 <= row <= scene.rows and 1 <= column <= scene.columns:
            found[relation] = scene.cells[(row - 1) * scene.columns + column - 1]
    return found


def _candidates(scene: Scene, kind: str) -> list[Cell]:
    """Cells about which a question of this kind has exactly one answer."""
    if kind == "lettered":
        counts = Counter(cell.letter for cell in scene.cells)
        return [cell for cell in scene.cells if counts[cell.letter] == 1]
    if kind == "relation":
        return [cell for cell in scene.cells if _neighbours(scene, cell)]
    return scene.cells


def ask(
    scene: Scene, kind: str, rng: np.random.Generator, cell: Cell | None = None
) -> Question | None:
    """Ask one question of a kind, about `cell` or about a random cell.

    Args:
        scene: The scene to ask about.
        kind: One of `KINDS`.
        rng: Source of the choices of cell and words.
        cell: The cell to ask about.

    Returns:
        The question; `None` where the scene allows no question of this kind with one answer.

    Raises:
        ValueError: `kind` is unknown.
    """
    check_kinds([kind])
    cells = _candidates(scene, kind)
    if cell is not None:
        cells = [cell] if cell in cells else []
    return _ask(scene, kind, cells[rng.integers(len(cells))], rng) if cells else None


def scene_questions(scene: Scene, kinds: Sequence[str] = KINDS, seed: int = 0) -> list[Question]:
    """Ask a question of each kind that one scene allows; the same arguments give the same ones.

    Raises:
        ValueError: A kind is unknown.
    """
    check_kinds(kinds)
    questions = []
    for kind in kinds:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        if cells := _candidates(scene, kind):
            questions.append(_ask(scene, kind, cells[rng.permutation(len(cells))[0]], rng))
    return questions
