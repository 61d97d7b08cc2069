"""Images of coloured solids on a table, in the style of CLEVR."""

from __future__ import annotations

import math
import zlib

import numpy as np

from hf_token_compress.data.scenes.surfaces import jittered

from .names import COLOURS, SOLIDS
from .renderer import Solid, render
from .scene import Box, ObjectScene, SceneObject

MAX_SOLIDS = 6
"""Maximum number of solids in an image."""

_SIZES = (0.36, 0.5)
_REACH = 1.55
_APART = 1.1
_COLOUR_JITTER = 14
_LEAST_SEEN = 0.6


def make_rendered_scene(
    number: int, split: str = "test", *, solids: int | None = None
) -> ObjectScene:
    """Render one image; the same arguments give the same image.

    Args:
        number: Number of the image in its split, at least 0.
        split: Name of a split; every split is a separate stream of images.
        solids: Number of solids, 1 to 6; by default a random number from 3 to 6.

    Raises:
        ImportError: MuJoCo is not installed or cannot render.
        ValueError: `solids` is out of range.
    """
    if solids is not None and not 1 <= solids <= MAX_SOLIDS:
        raise ValueError(f"solids must be 1 to {MAX_SOLIDS}, but it is {solids}.")
    rng = np.random.default_rng([zlib.crc32(f"rendered {split}".encode()), number])
    count = int(rng.integers(3, MAX_SOLIDS + 1)) if solids is None else solids
    while True:
        placed, colours = _place(rng, count)
        image, boxes = render(placed, rng)
        # Draw again if one solid hides most of another.
        if all(_well_seen(box) for box in boxes):
            break
    objects = tuple(
        SceneObject(solid.shape, colour, box, source="MuJoCo")
        for solid, colour, box in zip(placed, colours, boxes, strict=True)
    )
    return ObjectScene(image, objects, vocabulary=SOLIDS, on_plates=False)


def _place(rng: np.random.Generator, count: int) -> tuple[list[Solid], list[str]]:
    places: list[np.ndarray] = []
    while len(places) < count:
        place = rng.uniform(-_REACH, _REACH, 2)
        if all(math.dist(place, other) >= _APART for other in places):
            places.append(place)
    solids, colours = [], []
    for place in places:
        shape = SOLIDS[rng.integers(len(SOLIDS))]
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        rgb = jittered(rng, COLOURS[colour], _COLOUR_JITTER)
        size, turn = rng.uniform(*_SIZES), rng.uniform(0, 90)
        solids.append(Solid(shape, rgb, float(place[0]), float(place[1]), size, turn))
        colours.append(colour)
    return solids, colours


def _well_seen(box: Box) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return width > 0 and _LEAST_SEEN < height / width < 1 / _LEAST_SEEN * 1.3
