"""Pictures of cut-out photographs on coloured plates, before photographs."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from lab.testbed.objects.compose import compose, random_names
from lab.testbed.objects.cutouts import HELD_OUT, Stamps, photographic_background
from lab.testbed.objects.layout import spots_of
from lab.testbed.objects.picture import Picture


def make_photographed_picture(
    number: int,
    split: str = "test",
    *,
    stamps: Stamps,
    rows: int | None = None,
    columns: int | None = None,
    things: int | None = None,
) -> Picture:
    """Compose one picture: a function of its arguments alone.

    Args:
        number: Number of the picture in its split, at least 0.
        split: Name of a split; every split is a stream of pictures of its own, and "held-out" shows
            stamps that no other split shows.
        stamps: The cut-outs.
        rows: Rows of the grid, 1 to 4.
        columns: Columns of the grid, 1 to 4.
        things: Number of things that are scattered, 1 to 8, instead of a grid. Without a layout
            each picture has a random one.

    Raises:
        ImportError: scikit-image, which carries the backgrounds, is not installed.
        ValueError: The layout is out of range.
    """

    def cutout(name: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
        known = stamps.of(name, split)
        stamp = known[rng.integers(len(known))]
        return stamps.image(stamp), stamp

    rng = np.random.default_rng([zlib.crc32(f"photographed {split}".encode()), number])
    vocabulary = stamps.names(split)
    spots = spots_of(rng, rows, columns, things)
    # Few stamps are held out: large grids show the same ones again.
    distinct = min(len(spots), len(vocabulary))
    names = random_names(rng, vocabulary, distinct, repeating=split != HELD_OUT)
    while len(names) < len(spots):
        names.append(names[rng.integers(distinct)])
    image = photographic_background(rng)
    return compose(image, rng, spots, names, cutout, vocabulary)
