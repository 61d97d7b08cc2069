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
"""Artist whose drawings are not used in training."""

TRAIN_ARTISTS: tuple[str, ...] = ("noto", "twemoji", "fluent", "fxemoji")
"""Artists whose drawings are used in training."""


def make_drawn_scene(
    number: int,
    split: str = "test",
    *,
    rows: int | None = None,
    columns: int | None = None,
    objects: int | None = None,
    artists: Sequence[str] = TRAIN_ARTISTS,
) -> ObjectScene:
    """Compose one image; the same arguments give the same image.

    Args:
        number: Number of the image in its split, at least 0.
        split: Name of a split; every split is a separate stream of images.
        rows: Rows of the grid, 1 to 4.
        columns: Columns of the grid, 1 to 4.
        objects: Number of scattered objects, 1 to 8, instead of a grid. Without rows, columns and
            objects the layout is random.
        artists: Artists whose drawings are used.

    Raises:
        ValueError: The layout is out of range, or the artists drew too few objects.
    """
    rng = np.random.default_rng([zlib.crc32(f"drawn {split}".encode()), number])
    spots = spots_of(rng, rows, columns, objects)
    vocabulary = drawn_vocabulary(tuple(artists))
    names = random_names(rng, vocabulary, len(spots))
    image = background(rng, SIDE, SIDE)
    return compose(image, rng, spots, names, drawings_by(tuple(artists)), vocabulary)


@cache
def drawn_vocabulary(artists: tuple[str, ...]) -> tuple[str, ...]:
    """Names drawn by at least one of the artists.

    Raises:
        ValueError: There are fewer names than objects in an image.
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
    """Drawings by these artists; a random one where several artists drew a name."""

    def cutout(name: str, rng: np.random.Generator) -> tuple[Image.Image, str]:
        drawings = load_drawings()
        able = [artist for artist in drawings.artists_of(name) if artist in artists]
        artist = able[rng.integers(len(able))]
        return drawings.image(name, artist), artist

    return cutout
