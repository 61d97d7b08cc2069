"""Pictures of what was kept: tokens lit over the image, scores as a heat map, rows of panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

    from .models.state import SampleReport
    from .prompt import TokenGrid, VisualSpan


class ScoredPrompt(Protocol):
    """A prompt whose visual tokens have scores, such as `SampleReport` and `SampleRelevance`."""

    @property
    def scores(self) -> Tensor | None:
        """float32 [N], over all its visual tokens in order; None where they were not scored."""

    @property
    def visuals(self) -> tuple[VisualSpan, ...]:
        """Its images and videos, in order of appearance."""


ScoreScale = Literal["value", "rank"]

_LUMA: NDArray[np.float32] = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
_DIMMED_BRIGHTNESS = np.float32(0.38)
_DIMMED_COLOUR = np.float32(0.25)
# Amber stands out from dimmed tokens by its lightness, which every eye sees, whatever its hue.
_BORDER = (255, 176, 0)
_INNER_BORDER_OPACITY = 0.4
_BORDERS_PER_TOKEN = 14

# Nine stops of viridis: lightness rises evenly, so that order is seen without telling hues apart.
_HEAT = np.array(
    [
        [68, 1, 84],
        [71, 45, 123],
        [59, 82, 139],
        [44, 114, 142],
        [33, 145, 140],
        [40, 174, 128],
        [94, 201, 98],
        [173, 220, 48],
        [253, 231, 37],
    ],
    dtype=np.float32,
)
_HEAT_OPACITY = 0.7

_PAPER = (255, 255, 255)
_INK = (24, 24, 27)
_FAINT_INK = (95, 95, 105)


def overlay(
    image: Image.Image,
    sample: SampleReport,
    visual: int = 0,
    *,
    frame: int = 0,
    token_size: int = 32,
) -> Image.Image:
    """Light the kept visual tokens of a picture and dim the dropped ones.

    Every token is drawn where it lies on the picture, whatever the processor did to it: resized,
    padded, cut into tiles. Kept tokens keep their pixels inside a thin border; dropped ones lose
    most of their colour and brightness. Where several grids lie over each other, such as a coarse
    one and one over tiles, a pixel is lit by the share of them that keep it. Tokens on no grid,
    such as newlines, are not drawn.

    Args:
        image: The picture that the processor was given, of any mode and size; for a video, its
            frame.
        sample: Report of its prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt it is, from 0, in order of appearance.
        frame: Which frame of the visual's grid; 0 for an image.
        token_size: Pixels that the shorter side of a token has at least: smaller pictures are
            enlarged. 1 leaves every picture whose tokens have a pixel at its size.

    Returns:
        An RGB image of the picture's size, or larger in the same proportions.

    Raises:
        IndexError: The prompt has no such visual, or the visual no such frame.
        ValueError: `token_size` is below 1.
    """
    grids = _frame_grids(sample, visual, frame)
    picture = _legible(image, grids, token_size)
    pixels = np.asarray(picture, dtype=np.float32)  # [H, W, 3]
    all_kept = sample.kept_visual.cpu().numpy()  # [N]
    shape = pixels.shape[:2]
    lit, covering = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    inner, outline = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for grid in grids:
        kept = all_kept[grid.tokens]  # [rows, columns]
        cells = _Cells.over(picture.size, grid)
        lit += cells.stretch(kept)
        covering += cells.stretch(np.ones_like(kept))
        inner |= cells.inner_borders(kept)
        outline |= cells.outline(kept)
    share = (lit / np.maximum(covering, 1))[..., None]
    dimmed = _dimmed(pixels)
    drawn = dimmed + share * (pixels - dimmed)
    border = np.array(_BORDER, dtype=np.float32)
    drawn[inner] += _INNER_BORDER_OPACITY * (border - drawn[inner])
    drawn[outline] = border
    return _to_image(drawn)


def heat_map(
    image: Image.Image,
    sample: ScoredPrompt,
    visual: int = 0,
    *,
    frame: int = 0,
    token_size: int = 32,
    scale: ScoreScale = "value",
) -> Image.Image:
    """Colour a picture by the scores of its visual tokens, dark blue (low) to yellow (high).

    Colours span the scores of the whole prompt, so that its pictures can be compared. Where several
    grids lie over each other, their colours are mixed.

    Args:
        image: The picture that the processor was given; for a video, its frame.
        sample: Its prompt, from `model.token_compression.last.samples` or from
            `relevance(model, inputs).samples`.
        visual: Which image or video of the prompt it is, from 0, in order of appearance.
        frame: Which frame of the visual's grid; 0 for an image.
        token_size: Pixels that the shorter side of a token has at least.
        scale: "value" colours by the score itself; "rank" by its place among the prompt's scores,
            which still tells tokens apart where a few scores outweigh all others.

    Returns:
        An RGB image of the picture's size, or larger in the same proportions.

    Raises:
        IndexError: The prompt has no such visual, or the visual no such frame.
        ValueError: The prompt was not scored, `token_size` is below 1 or `scale` is unknown.
    """
    if sample.scores is None:
        raise ValueError(
            "This prompt has no scores to draw, because all of its visual tokens were kept "
            "without scoring: run it with a retention ratio below 1."
        )
    if scale not in ("value", "rank"):
        raise ValueError(f"scale must be 'value' or 'rank', but it is {scale!r}.")
    scores = sample.scores.cpu().numpy()  # [N]
    if scale == "rank":
        scores = np.unique(scores, return_inverse=True)[1]
    spread = np.ptp(scores)
    shares = (scores - scores.min()) / spread if spread > 0 else np.zeros(scores.shape)
    all_colours = _heat_colours(shares)  # [N, 3]
    grids = _frame_grids(sample, visual, frame)
    picture = _legible(image, grids, token_size)
    grey = _grey(np.asarray(picture, dtype=np.float32))  # [H, W, 1]
    colours, covering = np.zeros((*grey.shape[:2], 3), dtype=np.float32), np.zeros_like(grey)
    for grid in grids:
        cells = _Cells.over(picture.size, grid)
        colours += cells.stretch(all_colours[grid.tokens])
        covering += cells.stretch(np.ones((*grid.tokens.shape, 1), dtype=np.float32))
    mixed = colours / np.maximum(covering, 1)
    opacity = np.where(covering > 0, np.float32(_HEAT_OPACITY), np.float32(0))
    return _to_image(grey + opacity * (mixed - grey))


def kept_per_frame(sample: SampleReport, visual: int = 0) -> list[tuple[int, int]]:
    """Kept visual tokens, and all, of every frame of a video (of an image: one frame).

    Args:
        sample: Report of its prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt it is, from 0, in order of appearance.

    Raises:
        IndexError: The prompt has no such visual.
    """
    kept = sample.kept_visual.cpu().numpy()
    counts = []
    for frame in range(len(_grids_of(sample, visual)[0].index)):
        tokens = [grid.tokens for grid in _frame_grids(sample, visual, frame)]
        counts.append((sum(int(kept[t].sum()) for t in tokens), sum(t.size for t in tokens)))
    return counts


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str = "",
    panel_height: int | None = None,
    font: str | Path | None = None,
) -> Image.Image:
    """Set pictures side by side, each over its caption.

    Args:
        images: The panels, from left to right; they are scaled to one height.
        captions: One text per panel. Its first line is set larger; long lines are wrapped.
        title: Text over all panels, set in the same way.
        panel_height: Pixels of the panels' height; by default that of the highest picture.
        font: A TrueType file; by default Pillow's own font, which has few letters beyond ASCII.

    Returns:
        An RGB image.

    Raises:
        OSError: The font cannot be read.
        ValueError: There are no images, or not as many captions as images.
    """
    if not images:
        raise ValueError("contact_sheet needs at least one image.")
    if len(images) != len(captions):
        raise ValueError(
            f"contact_sheet needs one caption per image, but got {len(captions)} captions for "
            f"{len(images)} images."
        )
    height = panel_height or max(image.height for image in images)
    panels = [_scaled_to_height(image, height) for image in images]
    margin = max(8, height // 20)
    type_size = max(13, height // 17)
    lead, body = _font(font, round(type_size * 1.25)), _font(font, type_size)
    width = sum(panel.width for panel in panels) + margin * (len(panels) + 1)
    heading = _TextBlock.wrapped(title, width - 2 * margin, lead, body)
    notes = [
        _TextBlock.wrapped(text, panel.width, lead, body)
        for text, panel in zip(captions, panels, strict=True)
    ]
    top = margin + (heading.height + margin if heading.lines else 0)
    notes_top = top + height + margin // 2
    notes_height = max(note.height for note in notes)
    sheet = Image.new("RGB", (width, notes_top + notes_height + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    heading.draw(draw, margin, margin)
    left = margin
    for panel, note in zip(panels, notes, strict=True):
        sheet.paste(panel, (left, top))
        note.draw(draw, left, notes_top)
        left += panel.width + margin
    return sheet


@dataclass(frozen=True)
class _FrameGrid:
    """One grid of one frame.

    Attributes:
        tokens: int [rows, columns], which of the prompt's visual tokens covers each cell.
        area: As in `TokenGrid`.
    """

    tokens: NDArray[np.int64]
    area: tuple[float, float, float, float]

    def token_size(self, picture: tuple[int, int]) -> float:
        """Pixels of a token's shorter side on a picture of (width, height)."""
        rows, columns = self.tokens.shape
        left, top, right, bottom = self.area
        return min(picture[0] * (right - left) / columns, picture[1] * (bottom - top) / rows)


def _grids_of(sample: ScoredPrompt, visual: int) -> tuple[TokenGrid, ...]:
    count = len(sample.visuals)
    if not 0 <= visual < count:
        available = f"0 to {count - 1}" if count else "none"
        raise IndexError(f"The prompt has no visual {visual}: it has {available}.")
    return sample.visuals[visual].grids


def _frame_grids(sample: ScoredPrompt, visual: int, frame: int) -> list[_FrameGrid]:
    """All grids of one frame."""
    grids = _grids_of(sample, visual)
    frames = len(grids[0].index)
    if not 0 <= frame < frames:
        raise IndexError(f"Visual {visual} has no frame {frame}: it has 0 to {frames - 1}.")
    start = sum(len(span.positions) for span in sample.visuals[:visual])
    return [_FrameGrid(start + grid.index[frame].numpy(), grid.area) for grid in grids]


def _legible(image: Image.Image, grids: Sequence[_FrameGrid], token_size: int) -> Image.Image:
    """The picture in RGB, enlarged where a token of a grid would be too small."""
    if token_size < 1:
        raise ValueError(f"token_size must be at least 1, but it is {token_size}.")
    picture = image.convert("RGB")
    factor = token_size / min(grid.token_size(picture.size) for grid in grids)
    if factor <= 1:
        return picture
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class _Cells:
    """Which token each pixel of a picture belongs to.

    Attributes:
        row: int [H], token row of each pixel row, ascending; -1 before the grid, the number of
            rows after it.
        column: int [W], token column of each pixel column, in the same way.
        border: Pixels of a border's width.
    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    border: int

    @classmethod
    def over(cls, size: tuple[int, int], grid: _FrameGrid) -> _Cells:
        """A grid over its area of a picture of (width, height) pixels."""
        (width, height), (rows, columns) = size, grid.tokens.shape
        left, top, right, bottom = grid.area
        return cls(
            _cell_of_pixel(height, rows, top, bottom),
            _cell_of_pixel(width, columns, left, right),
            max(1, round(grid.token_size(size) / _BORDERS_PER_TOKEN)),
        )

    def stretch(self, values: NDArray[Any]) -> NDArray[Any]:
        """[rows, columns, …] → [H, W, …], zero beyond the grid."""
        padded = np.pad(values, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)])
        return padded[self.row[:, None] + 1, self.column[None, :] + 1]

    def outline(self, kept: NDArray[Any]) -> NDArray[np.bool_]:
        """Pixels of kept tokens that lie along a dropped one or the picture's rim: bool [H, W]."""
        line = np.zeros((len(self.row), len(self.column)), dtype=np.bool_)
        for down, across, neighbour in _neighbours(kept):
            near = _near(self.row, down, self.border)[:, None]
            near = near & _near(self.column, across, self.border)[None, :]
            line |= near & self.stretch(kept & ~neighbour)
        return line

    def inner_borders(self, kept: NDArray[Any]) -> NDArray[np.bool_]:
        """Lines between kept tokens that are neighbours: bool [H, W]."""
        first_row = _near(self.row, -1, max(1, self.border // 2))
        first_column = _near(self.column, -1, max(1, self.border // 2))
        lines: NDArray[np.bool_] = self.stretch(kept) & (first_row[:, None] | first_column)
        return lines


def _cell_of_pixel(pixels: int, cells: int, start: float, end: float) -> NDArray[np.intp]:
    """The cell under the centre of each pixel, int [pixels], -1 before and `cells` after all.

    Args:
        pixels: Pixels of the picture in this direction.
        cells: Cells of the grid.
        start: Where on the picture the grid starts, as a share of its pixels.
        end: Where it ends.
    """
    doubled = 2 * np.arange(pixels) + 1  # twice the centres, which keeps whole grids exact
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


def _neighbours(kept: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """For each of the eight directions (down, across), whether the token there is kept."""
    rows, columns = kept.shape
    padded = np.pad(kept, 1)  # beyond the rim nothing is kept
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            if (down, across) != (0, 0):
                yield down, across, padded[1 + down :, 1 + across :][:rows, :columns]


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma of RGB pixels: [H, W, 3] → [H, W, 1]."""
    return pixels @ _LUMA


def _dimmed(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    grey = _grey(pixels)
    dimmed: NDArray[np.float32] = _DIMMED_BRIGHTNESS * (grey + _DIMMED_COLOUR * (pixels - grey))
    return dimmed


def _heat_colours(shares: NDArray[Any]) -> NDArray[np.float32]:
    """Shares in [0, 1] → RGB, [..., 3]."""
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    channels = [np.interp(shares, stops, channel) for channel in _HEAT.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def _to_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _scaled_to_height(image: Image.Image, height: int) -> Image.Image:
    panel = image.convert("RGB")
    if panel.height == height:
        return panel
    width = max(1, round(panel.width * height / panel.height))
    return panel.resize((width, height), Image.Resampling.LANCZOS)


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _font(font: str | Path | None, size: int) -> _Font:
    return ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size)


@dataclass(frozen=True)
class _TextBlock:
    """Lines of text, each with its font and colour, set under each other."""

    lines: tuple[tuple[str, _Font, tuple[int, int, int]], ...]

    @classmethod
    def wrapped(cls, text: str, width: int, lead: _Font, body: _Font) -> _TextBlock:
        """Wrap a text to a width; its first line in the lead font, the rest in the body font."""
        lines = []
        for number, paragraph in enumerate(text.splitlines()):
            font, ink = (lead, _INK) if number == 0 else (body, _FAINT_INK)
            lines += [(line, font, ink) for line in _wrap(paragraph, width, font)]
        return cls(tuple(lines))

    @property
    def height(self) -> int:
        """Pixels from the first line's top to the last one's foot."""
        return sum(_line_height(font) for _, font, _ in self.lines)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw the lines with their upper left corner at (left, top)."""
        for line, font, ink in self.lines:
            draw.text((left, top), line, fill=ink, font=font)
            top += _line_height(font)


def _line_height(font: _Font) -> int:
    return round(1.3 * (font.getbbox("Ag")[3]))


def _wrap(text: str, width: int, font: _Font) -> list[str]:
    """Break a text between words, and within words that are wider than a line."""
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
