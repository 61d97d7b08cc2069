"""Images of drawings on coloured plates."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from hf_token_compress.data.scenes import load_drawings
from hf_token_compress.data.scenes.surfaces import background

from .compose import CutoutMaker, compose, random_names
from .layout import spots_of
from .names import DRAWN_NAMES
from .scene import SIDE, ObjectScene

HELD_OUT_ARTIST = "emojione"
"""Whose drawings the testbed is not trained on."""

TRAIN_ARTISTS: tuple[str, ...] = ("noto", "twemoji", "fluent", "fxemoji")
"""Whose drawings it is trained on."""


def make_drawn_scene(
    number: int,
    split: str = "test",
    *,
    rows: int | None = None,
    columns: int | None = None,
    objects: int | None = None,
    artists: Sequence[str] = TRAIN_ARTISTS,
) -> ObjectScene:
    """Compose one image: a function of its arguments alone.

    Args:
        number: Number of the image in its split, at least 0.
        split: Name of a split; every split is a stream of images of its own.
        rows: Rows of the grid, 1 to 4.
        columns: Columns of the grid, 1 to 4.
        objects: Number of objects that are scattered, 1 to 8, instead of a grid. Without a layout
            each image has a random one.
        artists: Whose drawings to use.

    Raises:
        ValueError: The layout is out of range, or an artist drew none of the names.
    """
    rng = np.random.default_rng([zlib.crc32(f"drawn {split}".encode()), number])
    spots = spots_of(rng, rows, columns, objects)
    vocabulary = drawn_vocabulary(tuple(artists))
    names = random_names(rng, vocabulary, len(spots))
    image = background(rng, SIDE, SIDE)
    return compose(image, rng, spots, names, drawings_by(tuple(artists)), vocabulary)


@cache
def drawn_vocabulary(artists: tuple[str, ...]) -> tuple[str, ...]:
    """Names that at least one of the artists drew.

    Raises:
        ValueError: There are fewer names than an image has objects.
    """
    drawings = load_drawings()
    found = tuple(n for n in DRAWN_NAMES if set(drawings.artists_of(n)) & set(artists))
    if len(found) < 16:
        raise ValueError(
            f"The artists {', '.join(artists)} drew too few objects: choose from "
            f"{', '.join(drawings.artists)}."
        )
    return found


@cache
def drawings_by(artists: tuple[str, ...]) -> CutoutMaker:
    """Drawings of these artists, one at random where several drew a name."""

    def cutout(name: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
        drawings = load_drawings()
        able = [artist for artist in drawings.artists_of(name) if artist in artists]
        artist = able[rng.integers(len(able))]
        return drawings.image(name, artist), artist

    return cutout
