"""Short videos of drawn images, each frame with plates of one colour of its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hf_token_compress.data.scenes.surfaces import background

from .compose import compose, random_names
from .drawn import TRAIN_ARTISTS, drawings_by, drawn_vocabulary
from .layout import spots_of
from .names import COLOURS
from .scene import SIDE, ObjectScene

_GRIDS = ((2, 2), (2, 3), (3, 2), (3, 3))


@dataclass(frozen=True)
class ObjectClip:
    """A short video; nothing is shown twice in it.

    Attributes:
        frames: Its images, all on grids of one shape, in order of time.
    """

    frames: tuple[ObjectScene, ...]

    @property
    def images(self) -> list[Image.Image]:
        """The frames' images."""
        return [frame.image for frame in self.frames]


def make_object_clip(
    number: int, split: str = "test", frames: int = 4, artists: Sequence[str] = TRAIN_ARTISTS
) -> ObjectClip:
    """Compose one clip: a function of its arguments alone.

    Args:
        number: Number of the clip in its split, at least 0.
        split: Name of a split; every split is a stream of clips of its own.
        frames: Frames, 1 to 7.
        artists: Whose drawings to use.

    Raises:
        ValueError: `frames` is out of range, or an artist drew none of the names.
    """
    if not 1 <= frames <= 7:
        raise ValueError(f"frames must be 1 to 7, but it is {frames}.")
    rng = np.random.default_rng([zlib.crc32(f"clip {split}".encode()), number, frames])
    rows, columns = _GRIDS[rng.integers(len(_GRIDS))]
    vocabulary = drawn_vocabulary(tuple(artists))
    names = random_names(rng, vocabulary, frames * rows * columns, repeating=False)
    colours = [list(COLOURS)[i] for i in rng.choice(len(COLOURS), frames, replace=False)]
    made = []
    for index, colour in enumerate(colours):
        shown = names[index * rows * columns : (index + 1) * rows * columns]
        spots = spots_of(rng, rows, columns)
        image = background(rng, SIDE, SIDE)
        cutout = drawings_by(tuple(artists))
        made.append(compose(image, rng, spots, shown, cutout, vocabulary, colour))
    return ObjectClip(tuple(made))
