"""Layout of the objects: on a grid, or scattered without overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scene import SIDE, Box

MAX_GRID = 4
"""Maximum number of rows and of columns."""

MAX_SCATTERED = 8
"""Maximum number of scattered objects."""

_GRIDS = ((2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (4, 4))
_SCATTERED_SHARE = 0.35
_FILL = (0.84, 0.96)
_SCATTERED_SIDES = (48, 80)
_GAP = 4
_TRIES = 200


@dataclass(frozen=True)
class Spot:
    """The square of one object; attributes as in `SceneObject`."""

    box: Box
    row: int | None = None
    column: int | None = None


def random_layout(rng: np.random.Generator, most: int = MAX_GRID**2) -> dict[str, int]:
    """Draw a grid or a number of scattered objects, at most `most` objects.

    Returns:
        `rows` and `columns`, or `objects`.
    """
    if rng.random() < _SCATTERED_SHARE:
        return {"objects": int(rng.integers(3, min(most, MAX_SCATTERED) + 1))}
    fitting = [grid for grid in _GRIDS if grid[0] * grid[1] <= most]
    rows, columns = fitting[rng.integers(len(fitting))]
    return {"rows": rows, "columns": columns}


def spots_of(
    rng: np.random.Generator,
    rows: int | None = None,
    columns: int | None = None,
    objects: int | None = None,
) -> list[Spot]:
    """Draw the spots of a grid or scattered spots; without arguments the layout is random.

    Raises:
        ValueError: Only one of rows and columns is given, they are given with `objects`, or one is
            out of range.
    """
    if rows is None and columns is None and objects is None:
        return spots_of(rng, **random_layout(rng))
    if objects is not None:
        if rows is not None or columns is not None:
            raise ValueError("Give rows and columns, or the number of scattered objects, not both.")
        if not 1 <= objects <= MAX_SCATTERED:
            raise ValueError(f"objects must be 1 to {MAX_SCATTERED}, but it is {objects}.")
        return _scattered(rng, objects)
    if rows is None or columns is None:
        raise ValueError("A grid needs both rows and columns.")
    if not (1 <= rows <= MAX_GRID and 1 <= columns <= MAX_GRID):
        raise ValueError(
            f"rows and columns must be 1 to {MAX_GRID}, but they are {rows} and {columns}."
        )
    return _grid(rng, rows, columns)


def _grid(rng: np.random.Generator, rows: int, columns: int) -> list[Spot]:
    height, width = SIDE / rows, SIDE / columns
    spots = []
    for row in range(rows):
        for column in range(columns):
            side = int(min(height, width) * rng.uniform(*_FILL))
            left = int(column * width + rng.uniform(0, width - side))
            top = int(row * height + rng.uniform(0, height - side))
            spots.append(Spot((left, top, left + side, top + side), row + 1, column + 1))
    return spots


def _scattered(rng: np.random.Generator, count: int) -> list[Spot]:
    boxes: list[Box] = []
    largest = _SCATTERED_SIDES[1]
    while len(boxes) < count:
        for _ in range(_TRIES):
            side = int(rng.integers(_SCATTERED_SIDES[0], largest + 1))
            left, top = (int(rng.integers(0, SIDE - side + 1)) for _ in range(2))
            box = (left, top, left + side, top + side)
            if all(_apart(box, other) for other in boxes):
                boxes.append(box)
                break
        else:
            # No free place: start again with smaller objects.
            boxes, largest = [], max(_SCATTERED_SIDES[0], largest - 8)
    return [Spot(box) for box in boxes]


def _apart(one: Box, other: Box) -> bool:
    across = one[2] + _GAP <= other[0] or other[2] + _GAP <= one[0]
    return across or one[3] + _GAP <= other[1] or other[3] + _GAP <= one[1]
