"""Questions about images of objects, each with exactly one right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hf_token_compress.data.scenes import Question

from .clips import ObjectClip
from .names import NUMBERS
from .scene import SIDE, Box, ObjectScene, SceneObject

TEMPLATES: dict[str, tuple[str, ...]] = {
    "place": ("What is {place}?", "What do you see {place}?", "Which thing is {place}?"),
    "attribute": (
        "Which colour is behind the {name}?",
        "What colour is behind the {name}?",
        "On which colour is the {name}?",
    ),
    "relation": ("What is {relation} the {name}?", "Which thing is {relation} the {name}?"),
    "count": (
        "How many times do you see the {name}?",
        "How often is the {name} shown?",
    ),
    "presence": ("Is there {article} {name}?", "Do you see {article} {name}?"),
    "where": ("Where is the {name}?", "Where do you see the {name}?"),
}
"""Wordings of each kind of question."""

KINDS: tuple[str, ...] = tuple(TEMPLATES)
"""Kinds of questions about an image."""

CLIP_KINDS: tuple[str, ...] = ("during", "first", "last", "attribute")
"""Kinds of questions about a clip."""

NEIGHBOURS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""Relations on a grid, and the step in (row, column) of each."""

_OWN_COLOUR = ("What colour is the {name}?", "Which colour does the {name} have?")
_SIDE_OF = {
    "across": ("left", "right", "Is the {name} left or right of the {other}?"),
    "down": ("above", "below", "Is the {name} above or below the {other}?"),
}
_CLEAR = 12
_CLEAR_DISTANCE = 40
_WHEN = {"during": "while the plates are {colour}", "first": "at the start", "last": "at the end"}


def ask(scene: ObjectScene, kind: str, rng: np.random.Generator) -> Question | None:
    """Ask one question of a kind about a random object.

    Args:
        scene: The scene to ask about.
        kind: One of `KINDS`.
        rng: Generator for the choice of object and wording.

    Returns:
        The question; None if the scene has no question of this kind with a single answer.

    Raises:
        ValueError: `kind` is unknown.
    """
    _check_kinds([kind], KINDS)
    return _ASK[kind](scene, rng)


def scene_questions(
    scene: ObjectScene, kinds: Sequence[str] = KINDS, seed: int = 0, per_kind: int = 1
) -> list[Question]:
    """Ask up to `per_kind` questions of each kind; the same arguments give the same questions.

    Raises:
        ValueError: A kind is unknown.
    """
    _check_kinds(kinds, KINDS)
    found = []
    for kind in kinds:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        asked = [ask(scene, kind, rng) for _ in range(per_kind)]
        found += [question for question in asked if question is not None]
    return found


def ask_clip(clip: ObjectClip, kind: str, rng: np.random.Generator) -> Question:
    """Ask one question of a kind about a random object of a clip.

    Raises:
        ValueError: `kind` is unknown.
    """
    _check_kinds([kind], CLIP_KINDS)
    last = len(clip.frames) - 1
    number = {"first": 0, "last": last}.get(kind, int(rng.integers(last + 1)))
    frame = clip.frames[number]
    obj = frame.objects[rng.integers(len(frame.objects))]
    if kind == "attribute":
        text = _phrase("attribute", rng, name=obj.name)
        return Question(kind, text, obj.colour, (obj.box,), (number,))
    when = _WHEN[kind].format(colour=obj.colour)
    place = f"at {_on_grid(obj)} {when}"
    text = _phrase("place", rng, place=place)
    return Question(kind, text, obj.name, (obj.box,), (number,))


def clip_questions(
    clip: ObjectClip, kinds: Sequence[str] = CLIP_KINDS, seed: int = 0, per_kind: int = 1
) -> list[Question]:
    """Ask `per_kind` questions of each kind; the same arguments give the same questions.

    Raises:
        ValueError: A kind is unknown.
    """
    rng = np.random.default_rng(seed)
    return [ask_clip(clip, kind, rng) for kind in kinds for _ in range(per_kind)]


def _check_kinds(kinds: Sequence[str], known: Sequence[str]) -> None:
    if unknown := sorted(set(kinds) - set(known)):
        raise ValueError(
            f"There is no kind of question {unknown[0]!r}: choose from {', '.join(known)}."
        )


def _place(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    candidates = scene.objects
    if scene.rows is None:
        alone = [objects[0] for objects in _corners(scene).values() if len(objects) == 1]
        candidates = tuple(alone)
    obj = _any(candidates, rng)
    if obj is None:
        return None
    place = f"at {_on_grid(obj)}" if scene.rows is not None else f"in the {_corner(obj)}"
    return Question("place", _phrase("place", rng, place=place), obj.name, (obj.box,))


def _where(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    candidates = scene.unique
    if scene.rows is None:
        candidates = [obj for obj in candidates if _corner(obj) is not None]
    obj = _any(candidates, rng)
    if obj is None:
        return None
    answer = _on_grid(obj) if scene.rows is not None else _corner(obj)
    return Question("where", _phrase("where", rng, name=obj.name), str(answer), (obj.box,))


def _attribute(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    obj = _any(scene.unique, rng)
    if obj is None:
        return None
    templates = TEMPLATES["attribute"] if scene.on_plates else _OWN_COLOUR
    text = templates[rng.integers(len(templates))].format(name=obj.name)
    return Question("attribute", text, obj.colour, (obj.box,))


def _relation(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    pairs = list(_neighbours(scene) if scene.rows is not None else _side_by_side(scene))
    if not pairs:
        return None
    text, answer, boxes = pairs[rng.integers(len(pairs))]
    return Question("relation", text, answer, boxes)


def _neighbours(scene: ObjectScene) -> Iterator[tuple[str, str, tuple[Box, ...]]]:
    places = {(obj.row, obj.column): obj for obj in scene.objects}
    for obj in scene.unique:
        for words, (down, across) in NEIGHBOURS.items():
            assert obj.row is not None
            assert obj.column is not None
            other = places.get((obj.row + down, obj.column + across))
            if other is not None:
                for template in TEMPLATES["relation"]:
                    text = template.format(relation=words, name=obj.name)
                    yield text, other.name, (obj.box, other.box)


def _side_by_side(scene: ObjectScene) -> Iterator[tuple[str, str, tuple[Box, ...]]]:
    for obj in scene.unique:
        for other in scene.unique:
            for axis, (lower, higher, template) in enumerate(_SIDE_OF.values()):
                distance = obj.centre[axis] - other.centre[axis]
                if abs(distance) >= _CLEAR_DISTANCE:
                    text = template.format(name=obj.name, other=other.name)
                    yield text, lower if distance < 0 else higher, (obj.box, other.box)


def _count(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    counts = Counter(obj.name for obj in scene.objects)
    if max(counts.values()) == 1:
        return None
    # All counts in the image are equally likely, so "one" is not a good guess.
    count = sorted(set(counts.values()))[rng.integers(len(set(counts.values())))]
    names = [name for name, found in counts.items() if found == count]
    name = names[rng.integers(len(names))]
    boxes = tuple(obj.box for obj in scene.objects if obj.name == name)
    return Question("count", _phrase("count", rng, name=name), NUMBERS[count - 1], boxes)


def _presence(scene: ObjectScene, rng: np.random.Generator) -> Question | None:
    shown = list(dict.fromkeys(obj.name for obj in scene.objects))
    absent = [name for name in scene.vocabulary if name not in shown]
    if not absent or rng.random() < 0.5:
        name, answer = shown[rng.integers(len(shown))], "yes"
    else:
        name, answer = absent[rng.integers(len(absent))], "no"
    boxes = tuple(obj.box for obj in scene.objects if obj.name == name)
    article = "an" if name[0] in "aeio" or name == "umbrella" else "a"
    text = _phrase("presence", rng, article=article, name=name)
    return Question("presence", text, answer, boxes)


_ASK: dict[str, Callable[[ObjectScene, np.random.Generator], Question | None]] = {
    "place": _place,
    "attribute": _attribute,
    "relation": _relation,
    "count": _count,
    "presence": _presence,
    "where": _where,
}


def _phrase(kind: str, rng: np.random.Generator, **words: object) -> str:
    templates = TEMPLATES[kind]
    return templates[rng.integers(len(templates))].format(**words)


def _any(objects: Sequence[SceneObject], rng: np.random.Generator) -> SceneObject | None:
    return objects[int(rng.integers(len(objects)))] if objects else None


def _on_grid(obj: SceneObject) -> str:
    assert obj.row is not None
    assert obj.column is not None
    return f"row {NUMBERS[obj.row - 1]}, column {NUMBERS[obj.column - 1]}"


def _corner(obj: SceneObject) -> str | None:
    """The corner of the image that an object clearly belongs to, if any."""
    across, down = obj.centre
    if min(abs(across - SIDE / 2), abs(down - SIDE / 2)) < _CLEAR:
        return None
    return f"{'top' if down < SIDE / 2 else 'bottom'} {'left' if across < SIDE / 2 else 'right'}"


def _corners(scene: ObjectScene) -> dict[str, list[SceneObject]]:
    """Objects by corner; empty if an object belongs to no corner clearly."""
    found: dict[str, list[SceneObject]] = {}
    unclear = any(_corner(obj) is None for obj in scene.objects)
    for obj in scene.objects:
        if (corner := _corner(obj)) is not None:
            found.setdefault(corner, []).append(obj)
    return {} if unclear else found
