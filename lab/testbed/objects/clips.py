"""Short videos of drawn images; all plates of a frame have one colour, different in each frame."""

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
    """A short video in which no object occurs twice.

    Attributes:
        frames: Its frames in temporal order, all with grids of the same shape.
    """

    frames: tuple[ObjectScene, ...]

    @property
    def images(self) -> list[Image.Image]:
        """The images of the frames."""
        return [frame.image for frame in self.frames]


def make_object_clip(
    number: int, split: str = "test", frames: int = 4, artists: Sequence[str] = TRAIN_ARTISTS
) -> ObjectClip:
    """Compose one clip; the same arguments give the same clip.

    Args:
        number: Number of the clip in its split, at least 0.
        split: Name of a split; every split is a separate stream of clips.
        frames: Number of frames, 1 to 7.
        artists: Artists whose drawings are used.

    Raises:
        ValueError: `frames` is out of range, or the artists drew too few objects.
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
