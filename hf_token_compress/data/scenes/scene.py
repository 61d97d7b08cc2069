"""Compose scenes: grids of cells, in each cell a drawing on a coloured tile with a letter badge.

An image is a function of (split, seed, rows, columns, drawings) alone, so that a seed names the
same image in training, tests and evaluation. Sizes are in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawings import Drawings, load_drawings
from .surfaces import background, jittered

Box = tuple[int, int, int, int]

CELL_SIZE = 48
"""Side of a cell in pixels: 2 x 2 visual tokens of the tiny models."""

MAX_SIDE = 8
"""Most rows, and most columns, of a scene."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 45),
    "orange": (245, 145, 35),
    "yellow": (245, 220, 60),
    "green": (60, 160, 70),
    "blue": (45, 95, 205),
    "purple": (130, 60, 165),
    "pink": (250, 165, 195),
    "grey": (140, 140, 145),
}
"""Tile colours, each varied a little from cell to cell."""

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
"""Badge letters; those that look like another one at badge size are left out."""

_COLOUR_JITTER = 14
_BADGE = 18
_FONT_SIZES = (15, 16, 17)
_DRAWING_SIZES = (32, 39)
_MAX_TILT = 12.0
_FRAME = 2


@dataclass(frozen=True)
class Cell:
    """One cell of a scene.

    Attributes:
        row: Row, counted from 1 at the top.
        column: Column, counted from 1 at the left.
        name: What is drawn in it.
        artist: Whose drawing it is.
        colour: Colour name of the tile behind the drawing.
        letter: Letter on the badge next to the drawing.
        box: Left, top, right, bottom in pixels; right and bottom are exclusive.
        badge: The same for the badge, which lies within one quarter of the cell.
    """

    row: int
    column: int
    name: str
    artist: str
    colour: str
    letter: str
    box: Box
    badge: Box


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: RGB image of `columns * 48` x `rows * 48` pixels.
        rows: Rows of the scene.
        columns: Columns of the scene.
        cells: Its cells, row by row.
    """

    image: Image.Image
    rows: int
    columns: int
    cells: list[Cell]


def make_scene(
    seed: int,
    rows: int = 4,
    columns: int = 4,
    split: str = "test",
    drawings: Drawings | None = None,
) -> Scene:
    """Compose one scene.

    Args:
        seed: Number of the scene in its split, at least 0.
        rows: Rows, 1 to 8.
        columns: Columns, 1 to 8.
        split: Name of a split; every split is a stream of scenes of its own.
        drawings: Where drawings come from; by default those that come with the library.

    Raises:
        ValueError: Rows or columns are out of range, or there are fewer concepts than cells.
    """
    drawings = load_drawings() if drawings is None else drawings
    check_board(rows, columns, rows * columns, drawings)
    rng = np.random.default_rng([zlib.crc32(split.encode()), seed, rows, columns])
    image = background(rng, columns * CELL_SIZE, rows * CELL_SIZE)
    names = choose(rng, drawings.drawn_names, rows * columns)
    return draw_cells(rng, image, columns, names, drawings)


def check_board(rows: int, columns: int, cells: int, drawings: Drawings) -> None:
    """Raise ValueError unless the scene has a size that is allowed, and there are enough names."""
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise ValueError(
            f"rows and columns must be 1 to {MAX_SIDE}, but they are {rows} x {columns}."
        )
    concepts = len(drawings.drawn_names)
    if concepts < cells:
        raise ValueError(
            f"{cells} cells need as many concepts, but there are {concepts}: ask for fewer."
        )


def choose(rng: np.random.Generator, items: Iterable[str], count: int) -> list[str]:
    """`count` of the items, none twice."""
    every = list(items)
    return [every[index] for index in rng.choice(len(every), count, replace=False)]


def draw_cells(
    rng: np.random.Generator,
    image: Image.Image,
    columns: int,
    names: Sequence[str],
    drawings: Drawings,
    colour: str | None = None,
) -> Scene:
    """Draw the cells on their background, row by row.

    Args:
        rng: Source of everything that the other arguments leave open.
        image: The background.
        columns: Columns of the scene.
        names: What the cells show.
        drawings: Where drawings come from.
        colour: Colour name of all tiles; by default, each has a random one.
    """
    cells = []
    for number, (name, letter) in enumerate(zip(names, _letters(rng, len(names)), strict=True)):
        row, column = divmod(number, columns)
        artists = drawings.artists_of(name)
        artist = artists[int(rng.integers(len(artists)))]
        tile = list(COLOURS)[rng.integers(len(COLOURS))] if colour is None else colour
        left, top = column * CELL_SIZE, row * CELL_SIZE
        _draw_tile(image, rng, left, top, COLOURS[tile])
        _draw_thing(image, rng, left, top, drawings.image(name, artist))
        badge = _draw_badge(image, rng, left, top, letter)
        box = (left, top, left + CELL_SIZE, top + CELL_SIZE)
        cells.append(Cell(row + 1, column + 1, name, artist, tile, letter, box, badge))
    _draw_frame(image, rng)
    return Scene(image, len(names) // columns, columns, cells)


def _letters(rng: np.random.Generator, count: int) -> list[str]:
    """`count` letters, none twice before all were used."""
    rounds = -(-count // len(LETTERS))
    order = np.concatenate([rng.permutation(len(LETTERS)) for _ in range(rounds)])[:count]
    return [LETTERS[i] for i in rng.permutation(order)]


def _draw_tile(
    image: Image.Image, rng: np.random.Generator, left: int, top: int, colour: Sequence[int]
) -> None:
    """A coloured tile, one of four shapes, 42 to 46 pixels per side."""
    side = int(rng.integers(42, 47))
    x = left + int(rng.integers(1, CELL_SIZE - side))
    y = top + int(rng.integers(1, CELL_SIZE - side))
    box = (x, y, x + side - 1, y + side - 1)
    fill = jittered(rng, colour, _COLOUR_JITTER)
    draw = ImageDraw.Draw(image)
    shape = rng.integers(4)
    if shape == 0:
        draw.rectangle(box, fill=fill)
    elif shape == 1:
        draw.rounded_rectangle(box, radius=int(rng.integers(5, 15)), fill=fill)
    elif shape == 2:
        draw.ellipse(box, fill=fill)
    else:
        cut = int(rng.integers(6, 13))
        r, b = box[2], box[3]
        corners = [(x + cut, y), (r - cut, y), (r, y + cut), (r, b - cut)]
        corners += [(r - cut, b), (x + cut, b), (x, b - cut), (x, y + cut)]
        draw.polygon(corners, fill=fill)


def _draw_thing(
    image: Image.Image, rng: np.random.Generator, left: int, top: int, drawing: Image.Image
) -> None:
    """The drawing, resized, perhaps mirrored and tilted, off the centre by a few pixels."""
    size = int(rng.integers(_DRAWING_SIZES[0], _DRAWING_SIZES[1] + 1))
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        tilt = float(rng.uniform(-_MAX_TILT, _MAX_TILT))
        drawing = drawing.rotate(tilt, Image.Resampling.BILINEAR)
    drawing = drawing.resize((size, size), Image.Resampling.BILINEAR)
    slack = CELL_SIZE - size
    x = left + slack // 2 + int(rng.integers(-3, 4))
    y = top + slack // 2 + int(rng.integers(-3, 4))
    image.paste(drawing, (x, y), drawing)


@cache
def _letter_mask(letter: str, size: int) -> Image.Image:
    """Coverage of one badge letter, centred on a badge."""
    mask = Image.new("L", (_BADGE, _BADGE))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(mask).text((_BADGE / 2, _BADGE / 2), letter, 255, font, anchor="mm")
    return mask


def _draw_badge(
    image: Image.Image, rng: np.random.Generator, left: int, top: int, letter: str
) -> Box:
    """A letter on a small plate in one of the four corners, dark on light or light on dark."""
    far = CELL_SIZE - _BADGE - 1
    shift = rng.integers(0, 3, 2)
    x = left + (1 + int(shift[0]) if rng.random() < 0.5 else far - int(shift[0]))
    y = top + (1 + int(shift[1]) if rng.random() < 0.5 else far - int(shift[1]))
    dark = tuple(int(v) for v in rng.integers(0, 60, 3))
    light = tuple(int(v) for v in rng.integers(215, 256, 3))
    plate, ink = (light, dark) if rng.random() < 0.5 else (dark, light)
    box = (x, y, x + _BADGE - 1, y + _BADGE - 1)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        draw.rectangle(box, fill=plate)
    else:
        draw.rounded_rectangle(box, radius=4, fill=plate)
    mask = _letter_mask(letter, int(rng.choice(_FONT_SIZES)))
    image.paste(ink, (x, y), mask)
    return x, y, x + _BADGE, y + _BADGE


def _draw_frame(image: Image.Image, rng: np.random.Generator) -> None:
    """A thin frame: a tower without absolute positions can only count from an edge it sees."""
    shade = int(rng.integers(0, 40)) if rng.random() < 0.5 else int(rng.integers(216, 256))
    box = (0, 0, image.width - 1, image.height - 1)
    ImageDraw.Draw(image).rectangle(box, outline=(shade, shade, shade), width=_FRAME)
