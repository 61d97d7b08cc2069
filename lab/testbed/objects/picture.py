"""What a picture of the testbed shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]

SIDE = 224
"""Pixels a side of every picture."""


@dataclass(frozen=True)
class Thing:
    """One thing in a picture.

    Attributes:
        name: What it is, one word.
        colour: Name of its own colour, or of that of the plate behind it.
        box: Left, top, right, bottom in pixels; right and bottom are exclusive.
        row: Row of the grid it lies on, from 1; None where things lie freely.
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
class Picture:
    """A picture and what is in it.

    Attributes:
        image: RGB, 224 x 224 pixels.
        things: Its things; on a grid row by row.
        rows: Rows of the grid; None where things lie freely.
        columns: Columns of the grid, likewise.
        vocabulary: Names of all that a picture of its kind can show.
        on_plates: Whether a thing's colour is that of a plate behind it.
    """

    image: Image.Image
    things: tuple[Thing, ...]
    rows: int | None = None
    columns: int | None = None
    vocabulary: tuple[str, ...] = ()
    on_plates: bool = True

    @property
    def unique(self) -> list[Thing]:
        """Things whose name no other thing of the picture has."""
        counts = Counter(thing.name for thing in self.things)
        return [thing for thing in self.things if counts[thing.name] == 1]
