"""Contact sheets: images side by side over their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER = (255, 255, 255)
_INK = (24, 24, 27)
_FAINT_INK = (95, 95, 105)


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str = "",
    panel_height: int | None = None,
    columns: int | None = None,
    font: str | Path | None = None,
) -> Image.Image:
    """Place images side by side, in one or more rows, each over its caption.

    Args:
        images: The panels from left to right; they are scaled to the same height.
        captions: One text per panel. Its first line is larger; long lines are wrapped.
        title: Text over all panels, in the same style.
        panel_height: Height of the panels in pixels; by default that of the highest image.
        columns: Maximum number of panels in a row; by default all.
        font: A TrueType file; by default Pillow's own font, which has few letters beyond ASCII.

    Returns:
        An RGB image.

    Raises:
        OSError: The font cannot be read.
        ValueError: There are no images, the numbers of images and captions differ, or `columns` is
            below 1.
    """
    if not images:
        raise ValueError("contact_sheet needs at least one image.")
    if len(images) != len(captions):
        raise ValueError(
            f"contact_sheet needs one caption per image, but got {len(captions)} captions for "
            f"{len(images)} images."
        )
    columns = len(images) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, but it is {columns}.")
    # Scale the panels, and wrap their captions to their widths.
    height = panel_height or max(image.height for image in images)
    panels = [scaled_to_height(image, height) for image in images]
    margin = max(8, height // 20)
    type_size = max(13, height // 17)
    lead, body = _font(font, round(type_size * 1.25)), _font(font, type_size)
    notes = [
        _wrapped(text, panel.width, lead, body)
        for text, panel in zip(captions, panels, strict=True)
    ]
    # Break them into rows, and measure the sheet.
    starts = range(0, len(panels), columns)
    rows = [(panels[start : start + columns], notes[start : start + columns]) for start in starts]
    width = max(sum(panel.width + margin for panel in row) for row, _ in rows) + margin
    heading = _wrapped(title, width - 2 * margin, lead, body)
    row_heights = [height + margin // 2 + max(map(_height, texts)) + margin for _, texts in rows]
    top = margin + (_height(heading) + margin if heading else 0)
    # Draw row by row.
    sheet = Image.new("RGB", (width, top + sum(row_heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_lines(draw, heading, margin, margin)
    for (row, texts), row_height in zip(rows, row_heights, strict=True):
        left = margin
        for panel, note in zip(row, texts, strict=True):
            sheet.paste(panel, (left, top))
            _draw_lines(draw, note, left, top + height + margin // 2)
            left += panel.width + margin
        top += row_height
    return sheet


def scaled_to_height(image: Image.Image, height: int) -> Image.Image:
    """The image in RGB, at a height in pixels."""
    width = max(1, round(image.width * height / image.height))
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Line = tuple[str, _Font, tuple[int, int, int]]  # a text, its font and its colour


def _font(font: str | Path | None, size: int) -> _Font:
    return ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size)


def _wrapped(text: str, width: int, lead: _Font, body: _Font) -> list[_Line]:
    """Lines of a text that fit a width: the first in the lead font, the rest in the body."""
    style = lead, _INK
    lines: list[_Line] = []
    for paragraph in text.splitlines():
        lines += [(line, *style) for line in _wrap(paragraph, width, style[0])]
        style = body, _FAINT_INK
    return lines


def _height(lines: list[_Line]) -> int:
    return sum(_line_height(font) for _, font, _ in lines)


def _draw_lines(draw: ImageDraw.ImageDraw, lines: list[_Line], left: int, top: int) -> None:
    for line, font, ink in lines:
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
