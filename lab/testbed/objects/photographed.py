"""Images of cut-out photographs on coloured plates, with photographs as background."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from .compose import compose, random_names
from .cutouts import HELD_OUT, Cutouts, photographic_background
from .layout import spots_of
from .scene import ObjectScene


def make_photographed_scene(
    number: int,
    split: str = "test",
    *,
    cutouts: Cutouts,
    rows: int | None = None,
    columns: int | None = None,
    objects: int | None = None,
) -> ObjectScene:
    """Compose one image; the same arguments give the same image.

    Args:
        number: Number of the image in its split, at least 0.
        split: Name of a split; every split is a separate stream of images, and "held-out" shows
            cutouts that no other split shows.
        cutouts: The cutouts.
        rows: Rows of the grid, 1 to 4.
        columns: Columns of the grid, 1 to 4.
        objects: Number of scattered objects, 1 to 8, instead of a grid. Without rows, columns and
            objects the layout is random.

    Raises:
        ImportError: scikit-image, which contains the backgrounds, is not installed.
        ValueError: The layout is out of range.
    """

    def cutout(name: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
        known = cutouts.of(name, split)
        file = known[rng.integers(len(known))]
        return cutouts.image(file), file

    rng = np.random.default_rng([zlib.crc32(f"photographed {split}".encode()), number])
    vocabulary = cutouts.names(split)
    spots = spots_of(rng, rows, columns, objects)
    # Few cutouts are held out, so large grids repeat some.
    distinct = min(len(spots), len(vocabulary))
    names = random_names(rng, vocabulary, distinct, repeating=split != HELD_OUT)
    while len(names) < len(spots):
        names.append(names[rng.integers(distinct)])
    image = photographic_background(rng)
    return compose(image, rng, spots, names, cutout, vocabulary)
