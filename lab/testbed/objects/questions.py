"""Questions in natural words about pictures of things, each with exactly one right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hf_token_compress.data.scenes import Question
from lab.testbed.objects.clips import ThingsClip
from lab.testbed.objects.names import NUMBERS
from lab.testbed.objects.picture import SIDE, Box, Picture, Thing

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
"""Phrasings of every kind of question."""

KINDS: tuple[str, ...] = tuple(TEMPLATES)
"""Every kind of question about a picture."""

CLIP_KINDS: tuple[str, ...] = ("during", "first", "last", "attribute")
"""Every kind of question about a clip."""

NEIGHBOURS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""Words of a relation on a grid, and the step in (row, column) that they stand for."""

_OWN_COLOUR = ("What colour is the {name}?", "Which colour does the {name} have?")
_SIDE_OF = {
    "across": ("left", "right", "Is the {name} left or right of the {other}?"),
    "down": ("above", "below", "Is the {name} above or below the {other}?"),
}
_CLEAR = 12
_CLEAR_DISTANCE = 40
_WHEN = {"during": "while the plates are {colour}", "first": "at the start", "last": "at the end"}


def ask(picture: Picture, kind: str, rng: np.random.Generator) -> Question | None:
    """Ask one question of a kind about a random thing.

    Args:
        picture: The picture to ask about.
        kind: One of `KINDS`.
        rng: Source of the choices of thing and words.

    Returns:
        The question; None where the picture allows none of this kind with one answer.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind not in _ASK:
        raise ValueError(f"unknown kind {kind!r}, known are {', '.join(KINDS)}")
    return _ASK[kind](picture, rng)


def picture_questions(
    picture: Picture, kinds: Sequence[str] = KINDS, seed: int = 0, per_kind: int = 1
) -> list[Question]:
    """Ask up to `per_kind` questions of each kind; the same arguments give the same questions.

    Raises:
        ValueError: A kind is unknown.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kind {min(unknown)!r}, known are {', '.join(KINDS)}")
    found = []
    for kind in kinds:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        asked = [ask(picture, kind, rng) for _ in range(per_kind)]
        found += [question for question in asked if question is not None]
    return found


def ask_clip(clip: ThingsClip, kind: str, rng: np.random.Generator) -> Question:
    """Ask one question of a kind about a random thing of a clip.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind not in CLIP_KINDS:
        raise ValueError(f"unknown kind {kind!r}, known are {', '.join(CLIP_KINDS)}")
    last = len(clip.frames) - 1
    number = {"first": 0, "last": last}.get(kind, int(rng.integers(last + 1)))
    frame = clip.frames[number]
    thing = frame.things[rng.integers(len(frame.things))]
    if kind == "attribute":
        text = _phrase("attribute", rng, name=thing.name)
        return Question(kind, text, thing.colour, (thing.box,), (number,))
    when = _WHEN[kind].format(colour=thing.colour)
    place = f"at {_on_grid(thing)} {when}"
    text = _phrase("place", rng, place=place)
    return Question(kind, text, thing.name, (thing.box,), (number,))


def clip_questions(
    clip: ThingsClip, kinds: Sequence[str] = CLIP_KINDS, seed: int = 0, per_kind: int = 1
) -> list[Question]:
    """Ask `per_kind` questions of each kind; the same arguments give the same questions.

    Raises:
        ValueError: A kind is unknown.
    """
    rng = np.random.default_rng(seed)
    return [ask_clip(clip, kind, rng) for kind in kinds for _ in range(per_kind)]


def _place(picture: Picture, rng: np.random.Generator) -> Question | None:
    candidates = picture.things
    if picture.rows is None:
        alone = [things[0] for things in _corners(picture).values() if len(things) == 1]
        candidates = tuple(alone)
    thing = _any(candidates, rng)
    if thing is None:
        return None
    place = f"at {_on_grid(thing)}" if picture.rows is not None else f"in the {_corner(thing)}"
    return Question("place", _phrase("place", rng, place=place), thing.name, (thing.box,))


def _where(picture: Picture, rng: np.random.Generator) -> Question | None:
    candidates = picture.unique
    if picture.rows is None:
        candidates = [thing for thing in candidates if _corner(thing) is not None]
    thing = _any(candidates, rng)
    if thing is None:
        return None
    answer = _on_grid(thing) if picture.rows is not None else _corner(thing)
    return Question("where", _phrase("where", rng, name=thing.name), str(answer), (thing.box,))


def _attribute(picture: Picture, rng: np.random.Generator) -> Question | None:
    thing = _any(picture.unique, rng)
    if thing is None:
        return None
    templates = TEMPLATES["attribute"] if picture.on_plates else _OWN_COLOUR
    text = templates[rng.integers(len(templates))].format(name=thing.name)
    return Question("attribute", text, thing.colour, (thing.box,))


def _relation(picture: Picture, rng: np.random.Generator) -> Question | None:
    pairs = list(_neighbours(picture) if picture.rows is not None else _side_by_side(picture))
    if not pairs:
        return None
    text, answer, boxes = pairs[rng.integers(len(pairs))]
    return Question("relation", text, answer, boxes)


def _neighbours(picture: Picture) -> Iterator[tuple[str, str, tuple[Box, ...]]]:
    places = {(thing.row, thing.column): thing for thing in picture.things}
    for thing in picture.unique:
        for words, (down, across) in NEIGHBOURS.items():
            assert thing.row is not None
            assert thing.column is not None
            other = places.get((thing.row + down, thing.column + across))
            if other is not None:
                for template in TEMPLATES["relation"]:
                    text = template.format(relation=words, name=thing.name)
                    yield text, other.name, (thing.box, other.box)


def _side_by_side(picture: Picture) -> Iterator[tuple[str, str, tuple[Box, ...]]]:
    for thing in picture.unique:
        for other in picture.unique:
            for axis, (lower, higher, template) in enumerate(_SIDE_OF.values()):
                distance = thing.centre[axis] - other.centre[axis]
                if abs(distance) >= _CLEAR_DISTANCE:
                    text = template.format(name=thing.name, other=other.name)
                    yield text, lower if distance < 0 else higher, (thing.box, other.box)


def _count(picture: Picture, rng: np.random.Generator) -> Question | None:
    counts = Counter(thing.name for thing in picture.things)
    if max(counts.values()) == 1:
        return None
    # Every count that occurs is as likely, so that "one" is no good guess.
    count = sorted(set(counts.values()))[rng.integers(len(set(counts.values())))]
    names = [name for name, found in counts.items() if found == count]
    name = names[rng.integers(len(names))]
    boxes = tuple(thing.box for thing in picture.things if thing.name == name)
    return Question("count", _phrase("count", rng, name=name), NUMBERS[count - 1], boxes)


def _presence(picture: Picture, rng: np.random.Generator) -> Question | None:
    shown = list(dict.fromkeys(thing.name for thing in picture.things))
    absent = [name for name in picture.vocabulary if name not in shown]
    if not absent or rng.random() < 0.5:
        name, answer = shown[rng.integers(len(shown))], "yes"
    else:
        name, answer = absent[rng.integers(len(absent))], "no"
    boxes = tuple(thing.box for thing in picture.things if thing.name == name)
    article = "an" if name[0] in "aeio" or name == "umbrella" else "a"
    text = _phrase("presence", rng, article=article, name=name)
    return Question("presence", text, answer, boxes)


_ASK: dict[str, Callable[[Picture, np.random.Generator], Question | None]] = {
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


def _any(things: Sequence[Thing], rng: np.random.Generator) -> Thing | None:
    return things[int(rng.integers(len(things)))] if things else None


def _on_grid(thing: Thing) -> str:
    assert thing.row is not None
    assert thing.column is not None
    return f"row {NUMBERS[thing.row - 1]}, column {NUMBERS[thing.column - 1]}"


def _corner(thing: Thing) -> str | None:
    """The corner of the picture that a thing clearly lies in, if any."""
    across, down = thing.centre
    if min(abs(across - SIDE / 2), abs(down - SIDE / 2)) < _CLEAR:
        return None
    return f"{'top' if down < SIDE / 2 else 'bottom'} {'left' if across < SIDE / 2 else 'right'}"


def _corners(picture: Picture) -> dict[str, list[Thing]]:
    """Things by corner; a corner in whose reach a thing lies unclearly is left out."""
    found: dict[str, list[Thing]] = {}
    unclear = any(_corner(thing) is None for thing in picture.things)
    for thing in picture.things:
        if (corner := _corner(thing)) is not None:
            found.setdefault(corner, []).append(thing)
    return {} if unclear else found
