"""Paint objects on coloured plates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from hf_token_compress.data.scenes.surfaces import jittered

from .layout import Spot
from .names import COLOURS
from .scene import ObjectScene, SceneObject

CutoutMaker = Callable[[str, np.random.Generator], tuple[Image.Image, str]]
"""From a name to an RGBA cutout of the object, and the source of the cutout."""

_REPEATING_SHARE = 0.5
_MOST_REPEATS = 4
_COLOUR_JITTER = 14
_FILL = (0.74, 0.88)
_MAX_TILT = 12.0


def random_names(
    rng: np.random.Generator, vocabulary: Sequence[str], count: int, repeating: bool = True
) -> list[str]:
    """Draw `count` names; half of the images with four objects or more repeat some names."""
    names = [vocabulary[i] for i in rng.choice(len(vocabulary), count, replace=False)]
    if repeating and count >= 4 and rng.random() < _REPEATING_SHARE:
        names = _repeated(rng, names)
        names = [names[i] for i in rng.permutation(count)]
    return names


def _repeated(rng: np.random.Generator, names: list[str]) -> list[str]:
    """Let one or two names replace others, of which at least one stays."""
    names, free = list(names), len(names) - 2
    for kept in range(int(rng.integers(1, 3))):
        more = int(rng.integers(1, _MOST_REPEATS))
        if more > free:
            break
        for place in range(len(names) - free, len(names) - free + more):
            names[place] = names[kept]
        free -= more
    return names


def compose(
    image: Image.Image,
    rng: np.random.Generator,
    spots: Sequence[Spot],
    names: Sequence[str],
    cutout: CutoutMaker,
    vocabulary: Sequence[str],
    colour: str | None = None,
) -> ObjectScene:
    """Paint objects on an image, in place.

    Args:
        image: The background, RGB.
        rng: Generator for all random choices.
        spots: Place of each object.
        names: Name of each object.
        cutout: Returns a cutout for a name.
        vocabulary: Names that an image of this kind can show.
        colour: Colour name of all plates; by default each plate gets a random one.
    """
    objects = []
    for spot, name in zip(spots, names, strict=True):
        plate = list(COLOURS)[rng.integers(len(COLOURS))] if colour is None else colour
        _draw_plate(image, rng, spot, plate)
        drawn, source = cutout(name, rng)
        _draw_cutout(image, rng, spot, drawn)
        objects.append(SceneObject(name, plate, spot.box, spot.row, spot.column, source))
    on_grid = spots[0].row is not None
    return ObjectScene(
        image,
        tuple(objects),
        rows=spots[-1].row if on_grid else None,
        columns=spots[-1].column if on_grid else None,
        vocabulary=tuple(vocabulary),
    )


def _draw_plate(image: Image.Image, rng: np.random.Generator, spot: Spot, colour: str) -> None:
    left, top, right, bottom = spot.box
    box = (left, top, right - 1, bottom - 1)
    fill = jittered(rng, COLOURS[colour], _COLOUR_JITTER)
    draw = ImageDraw.Draw(image)
    shape = rng.integers(3)
    if shape == 0:
        draw.rectangle(box, fill=fill)
    elif shape == 1:
        draw.rounded_rectangle(box, radius=int(rng.integers(6, 16)), fill=fill)
    else:
        draw.ellipse(box, fill=fill)


def _draw_cutout(
    image: Image.Image, rng: np.random.Generator, spot: Spot, cutout: Image.Image
) -> None:
    """Paste the cutout into the middle of its spot, sometimes flipped or tilted."""
    left, top, right, bottom = spot.box
    if rng.random() < 0.5:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        tilt = float(rng.uniform(-_MAX_TILT, _MAX_TILT))
        cutout = cutout.rotate(tilt, Image.Resampling.BILINEAR)
    side = (right - left) * rng.uniform(*_FILL)
    scale = side / max(cutout.size)
    size = (max(1, int(cutout.width * scale)), max(1, int(cutout.height * scale)))
    cutout = cutout.resize(size, Image.Resampling.BILINEAR)
    shift = rng.integers(-2, 3, 2)
    x = (left + right - size[0]) // 2 + int(shift[0])
    y = (top + bottom - size[1]) // 2 + int(shift[1])
    image.paste(cutout, (x, y), cutout)
