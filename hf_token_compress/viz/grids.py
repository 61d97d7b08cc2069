"""The places of visual tokens on an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.media import to_rgb, upright

if TYPE_CHECKING:
    from ..compression.report import SampleReport
    from ..prompt import TokenGrid
    from ..relevance import SampleRelevance

ScoredPrompt: TypeAlias = "SampleReport | SampleRelevance"

_BORDERS_PER_TOKEN = 14
_SAME_STRETCHING = 1e-6


@dataclass(frozen=True)
class FrameGrid:
    """One grid over one frame: the prompt's visual token in each cell, int64 [rows, columns].

    `area` is the part of the image under the grid, as in `TokenGrid`.
    """

    tokens: NDArray[np.int64]
    area: tuple[float, float, float, float]

    def token_size(self, image_size: tuple[int, int]) -> float:
        """Length in pixels of a token's shorter side on an image of (width, height)."""
        (width, height), (rows, columns) = image_size, self.tokens.shape
        left, top, right, bottom = self.area
        return min(width * (right - left) / columns, height * (bottom - top) / rows)

    def stretching(self, image_size: tuple[int, int]) -> float:
        """How far tokens are from squares on an image of (width, height): 0 for squares."""
        (width, height), (rows, columns) = image_size, self.tokens.shape
        left, top, right, bottom = self.area
        across, down = width * (right - left) / columns, height * (bottom - top) / rows
        return abs(math.log(across / down))


def grids_of(sample: ScoredPrompt, visual: int) -> tuple[TokenGrid, ...]:
    """All grids of one image or video of a prompt.

    Raises:
        IndexError: There is no such image or video.
        ValueError: Its tokens lie nowhere on it.
    """
    count = len(sample.visuals)
    if not 0 <= visual < count:
        available = f"0 to {count - 1}" if count else "none"
        raise IndexError(f"The prompt has no visual {visual}: it has {available}.")
    grids = sample.visuals[visual].grids
    if not grids:
        raise ValueError(
            f"Visual {visual} cannot be drawn: the model does not say where its tokens lie on it."
        )
    return grids


def frame_grids(sample: ScoredPrompt, visual: int, frame: int) -> list[FrameGrid]:
    """All grids of one frame of an image or video; `IndexError` if there is no such one."""
    grids = grids_of(sample, visual)
    frames = len(grids[0].index)
    if not 0 <= frame < frames:
        raise IndexError(f"Visual {visual} has no frame {frame}: it has 0 to {frames - 1}.")
    start = sum(len(span.positions) for span in sample.visuals[:visual])
    return [FrameGrid(start + grid.index[frame].numpy(), grid.area) for grid in grids]


def legible(image: Image.Image, grids: Sequence[FrameGrid], token_size: int) -> Image.Image:
    """The image as the model saw it, in RGB.

    It is enlarged until every token has the given size in pixels, at least 1.
    """
    if token_size < 1:
        raise ValueError(f"token_size must be at least 1, but it is {token_size}.")
    image = _as_seen(image, grids)
    factor = token_size / min(grid.token_size(image.size) for grid in grids)
    if factor <= 1:
        return image
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _as_seen(image: Image.Image, grids: Sequence[FrameGrid]) -> Image.Image:
    """The image in RGB, turned as its EXIF tag says unless its grids fit the image as it lies.

    Transformers turns images that it reads from files, but not those that it is given.
    """
    lying, turned = to_rgb(image), upright(image)
    if lying.size == turned.size:
        return turned
    stretched = [sum(grid.stretching(seen.size) for grid in grids) for seen in (lying, turned)]
    return lying if stretched[0] < stretched[1] - _SAME_STRETCHING else turned


@dataclass(frozen=True)
class Cells:
    """The grid cell of each pixel of an image.

    Attributes:
        row: int [H], grid row of each pixel row, ascending; -1 before the grid, the number of grid
            rows after it.
        column: int [W], grid column of each pixel column, in the same way.
        border: Width of a border in pixels.
    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    border: int

    @classmethod
    def over(cls, size: tuple[int, int], grid: FrameGrid) -> Cells:
        """The cells of a grid on an image of (width, height) pixels."""
        (width, height), (rows, columns) = size, grid.tokens.shape
        left, top, right, bottom = grid.area
        return cls(
            _cell_of_pixel(height, rows, top, bottom),
            _cell_of_pixel(width, columns, left, right),
            max(1, round(grid.token_size(size) / _BORDERS_PER_TOKEN)),
        )

    def stretch(self, values: NDArray[Any]) -> NDArray[Any]:
        """Enlarge [rows, columns, …] to pixels [H, W, …], zero beyond the grid."""
        padded = np.pad(values, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)])
        # [rows + 2, columns + 2, …] → [H, W, …]
        return padded[self.row[:, None] + 1, self.column[None, :] + 1]

    def outline(self, kept: NDArray[Any]) -> NDArray[np.bool_]:
        """Pixels of kept tokens along a dropped token or the grid's edge: bool [H, W]."""
        rows, columns = kept.shape
        padded = np.pad(kept, 1)  # nothing is kept beyond the edge
        line = np.zeros((len(self.row), len(self.column)), dtype=np.bool_)
        # Look at each token's neighbours in all directions.
        for down, across in product((-1, 0, 1), repeat=2):
            neighbour = padded[1 + down :, 1 + across :][:rows, :columns]
            near_row = _near(self.row, down, self.border)[:, None]  # [H, 1]
            near = near_row & _near(self.column, across, self.border)  # [H, W]
            line |= near & self.stretch(kept & ~neighbour)
        return line

    def inner_borders(self, kept: NDArray[Any]) -> NDArray[np.bool_]:
        """Lines between neighbouring kept tokens: bool [H, W]."""
        first_row = _near(self.row, -1, max(1, self.border // 2))
        first_column = _near(self.column, -1, max(1, self.border // 2))
        lines: NDArray[np.bool_] = self.stretch(kept) & (first_row[:, None] | first_column)
        return lines


def _cell_of_pixel(pixels: int, cells: int, start: float, end: float) -> NDArray[np.intp]:
    """The cell under the centre of each pixel along one axis; -1 or `cells` beyond the grid.

    The grid reaches from `start` to `end` as shares of the image.
    """
    doubled = 2 * np.arange(pixels) + 1  # twice the centres: whole grids need no rounding
    if (start, end) == (0.0, 1.0):
        return (doubled * cells // (2 * pixels)).astype(np.intp)
    place = (doubled / (2 * pixels) - start) / (end - start)
    return np.floor(place * cells).clip(-1, cells).astype(np.intp)


def _near(cell_of_pixel: NDArray[np.intp], side: int, distance: int) -> NDArray[np.bool_]:
    """Pixels near the start (side -1) or the end (1) of their cell; all pixels for side 0."""
    pixel = np.arange(len(cell_of_pixel))
    if side < 0:
        return pixel - np.searchsorted(cell_of_pixel, cell_of_pixel, "left") < distance
    if side > 0:
        return np.searchsorted(cell_of_pixel, cell_of_pixel, "right") - 1 - pixel < distance
    return np.ones(len(cell_of_pixel), dtype=np.bool_)
