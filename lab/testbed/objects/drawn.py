"""Pictures of drawings on coloured plates."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from hf_token_compress.data.scenes import load_drawings
from hf_token_compress.data.scenes.surfaces import background
from lab.testbed.objects.compose import Cutout, compose, random_names
from lab.testbed.objects.layout import spots_of
from lab.testbed.objects.names import DRAWN_NAMES
from lab.testbed.objects.picture import SIDE, Picture

HELD_OUT_ARTIST = "emojione"
"""Whose drawings the testbed is not trained on."""

TRAIN_ARTISTS: tuple[str, ...] = ("noto", "twemoji", "fluent", "fxemoji")
"""Whose drawings it is trained on."""


def make_drawn_picture(
    number: int,
    split: str = "test",
    *,
    rows: int | None = None,
    columns: int | None = None,
    things: int | None = None,
    artists: Sequence[str] = TRAIN_ARTISTS,
) -> Picture:
    """Compose one picture: a function of its arguments alone.

    Args:
        number: Number of the picture in its split, at least 0.
        split: Name of a split; every split is a stream of pictures of its own.
        rows: Rows of the grid, 1 to 4.
        columns: Columns of the grid, 1 to 4.
        things: Number of things that are scattered, 1 to 8, instead of a grid. Without a layout
            each picture has a random one.
        artists: Whose drawings to use.

    Raises:
        ValueError: The layout is out of range, or an artist drew none of the names.
    """
    rng = np.random.default_rng([zlib.crc32(f"drawn {split}".encode()), number])
    spots = spots_of(rng, rows, columns, things)
    vocabulary = drawn_vocabulary(tuple(artists))
    names = random_names(rng, vocabulary, len(spots))
    image = background(rng, SIDE, SIDE)
    return compose(image, rng, spots, names, drawings_by(tuple(artists)), vocabulary)


@cache
def drawn_vocabulary(artists: tuple[str, ...]) -> tuple[str, ...]:
    """Names that at least one of the artists drew.

    Raises:
        ValueError: There are fewer names than a picture has things.
    """
    drawings = load_drawings()
    found = tuple(n for n in DRAWN_NAMES if set(drawings.artists_of(n)) & set(artists))
    if len(found) < 16:
        raise ValueError(
            f"The artists {', '.join(artists)} drew too few things: choose of "
            f"{', '.join(drawings.artists)}."
        )
    return found


@cache
def drawings_by(artists: tuple[str, ...]) -> Cutout:
    """Drawings of these artists, one at random where several drew a name."""

    def cutout(name: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
        drawings = load_drawings()
        able = [artist for artist in drawings.artists_of(name) if artist in artists]
        artist = able[rng.integers(len(able))]
        return drawings.image(name, artist), artist

    return cutout
