"""What an image of the testbed shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]

SIDE = 224
"""Pixels a side of every image."""


@dataclass(frozen=True)
class SceneObject:
    """One object in an image.

    Attributes:
        name: What it is, one word.
        colour: Name of its own colour, or of that of the plate behind it.
        box: Left, top, right, bottom in pixels; right and bottom are exclusive.
        row: Row of the grid it lies on, from 1; None where objects lie freely.
        column: Column of the grid, from 1, likewise.
        source: Whose drawing or photograph it is.
    """

    name: str
    colour: str
    box: Box
    row: int | None = None
    column: int | None = None
    source: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        """Across and down, in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class ObjectScene:
    """An image and what is in it.

    Attributes:
        image: RGB, 224 x 224 pixels.
        objects: Its objects; on a grid row by row.
        rows: Rows of the grid; None where objects lie freely.
        columns: Columns of the grid, likewise.
        vocabulary: Names of all that an image of its kind can show.
        on_plates: Whether an object's colour is that of a plate behind it.
    """

    image: Image.Image
    objects: tuple[SceneObject, ...]
    rows: int | None = None
    columns: int | None = None
    vocabulary: tuple[str, ...] = ()
    on_plates: bool = True

    @property
    def unique(self) -> list[SceneObject]:
        """Objects whose name no other object of the image has."""
        counts = Counter(obj.name for obj in self.objects)
        return [obj for obj in self.objects if counts[obj.name] == 1]
