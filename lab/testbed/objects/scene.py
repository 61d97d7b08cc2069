"""A scene of the testbed: an image and the objects in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]

SIDE = 224
"""Side of every image in pixels."""


@dataclass(frozen=True)
class SceneObject:
    """One object in an image.

    Attributes:
        name: Its name, one word.
        colour: Name of its colour, or of the colour of the plate behind it.
        box: Left, top, right, bottom in pixels; right and bottom are exclusive.
        row: Row of the grid, from 1; None for scattered objects.
        column: Column of the grid, from 1; None for scattered objects.
        source: Artist of the drawing, or file of the photograph.
    """

    name: str
    colour: str
    box: Box
    row: int | None = None
    column: int | None = None
    source: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        """Horizontal and vertical centre in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class ObjectScene:
    """An image and the objects in it.

    Attributes:
        image: RGB, 224 x 224 pixels.
        objects: Its objects; those of a grid row by row.
        rows: Rows of the grid; None for scattered objects.
        columns: Columns of the grid; None for scattered objects.
        vocabulary: Names of all objects that an image of this kind can show.
        on_plates: Whether the colour of an object is that of the plate behind it.
    """

    image: Image.Image
    objects: tuple[SceneObject, ...]
    rows: int | None = None
    columns: int | None = None
    vocabulary: tuple[str, ...] = ()
    on_plates: bool = True

    @property
    def unique(self) -> list[SceneObject]:
        """Objects whose name occurs once in the image."""
        counts = Counter(obj.name for obj in self.objects)
        return [obj for obj in self.objects if counts[obj.name] == 1]
