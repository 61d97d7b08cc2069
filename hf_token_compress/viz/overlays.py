"""Overlays on an image: its kept tokens lit, or its scores as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from ..checks import check_choice
from .grids import Cells, ScoredPrompt, frame_grids, legible

if TYPE_CHECKING:
    from ..compression.report import SampleReport

ScoreScale = Literal["value", "rank"]

_LUMA: NDArray[np.float32] = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
_DIMMED_BRIGHTNESS = np.float32(0.38)
_DIMMED_COLOUR = np.float32(0.25)
# Amber differs from dimmed tokens in lightness, so it is visible to colour-blind readers too.
_BORDER = np.array((255, 176, 0), dtype=np.float32)
_INNER_BORDER_OPACITY = 0.4

# Nine stops of viridis, whose lightness rises evenly: the order is visible without seeing hues.
_VIRIDIS = "#440154 #472d7b #3b528b #2c728e #21918c #28ae80 #5ec962 #addc30 #fde725"
HEAT = np.array([ImageColor.getrgb(stop) for stop in _VIRIDIS.split()], dtype=np.float32)
_HEAT_OPACITY = 0.7


def overlay(
    image: Image.Image,
    sample: SampleReport,
    visual: int = 0,
    *,
    frame: int = 0,
    token_size: int = 32,
) -> Image.Image:
    """Light the kept visual tokens of an image and dim the dropped ones.

    Tokens are drawn at their places on the image, whether the processor resized it, padded it or
    cut it into tiles. Kept tokens keep their pixels inside a thin border; dropped tokens lose most
    of their colour and brightness. Where several grids overlap, such as a coarse one and one over
    tiles, a pixel is lit by the share of grids that keep it. Tokens outside all grids, such as
    newlines, are not drawn.

    A photograph with an EXIF orientation is turned as its tag says, as Transformers turns images
    that it reads from files, unless the proportions of its grids show that the model saw it as it
    is stored. Where they do not tell, and the processor was given the image itself, remove the tag.

    Args:
        image: The image that the processor was given, of any mode and size, or a frame of a video.
        sample: Report of its prompt, from `model.token_compression.last.samples`.
        visual: Index of the image or video in the prompt, in order of appearance.
        frame: Index of the frame in the video's grid; 0 for an image.
        token_size: Minimum length in pixels of a token's shorter side; smaller images are enlarged.

    Returns:
        An RGB image of the same size, or larger with the same proportions.

    Raises:
        IndexError: The prompt has no such image or video, or it has no such frame.
        ValueError: `token_size` is below 1.
    """
    grids = frame_grids(sample, visual, frame)
    image = legible(image, grids, token_size)
    pixels = np.asarray(image, dtype=np.float32)  # [H, W, 3]
    all_kept = sample.kept_visual.cpu().numpy()  # [N]
    # For each pixel: grids that keep it, grids that cover it, and the borders on it.
    lit, covering = np.zeros((2, *pixels.shape[:2]), dtype=np.float32)
    inner, outline = np.zeros((2, *pixels.shape[:2]), dtype=np.bool_)
    for grid in grids:
        kept = all_kept[grid.tokens]  # [rows, columns]
        cells = Cells.over(image.size, grid)
        lit += cells.stretch(kept)
        covering += cells.stretch(np.ones_like(kept))
        inner |= cells.inner_borders(kept)
        outline |= cells.outline(kept)
    # Blend the image with its dimmed copy, and draw the borders on top.
    share = (lit / np.maximum(covering, 1))[..., None]  # [H, W, 1]
    grey = pixels @ _LUMA  # [H, W, 1]
    dimmed = _DIMMED_BRIGHTNESS * (grey + _DIMMED_COLOUR * (pixels - grey))
    drawn = dimmed + share * (pixels - dimmed)
    drawn[inner] += _INNER_BORDER_OPACITY * (_BORDER - drawn[inner])
    drawn[outline] = _BORDER
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
    """Colour an image by the scores of its visual tokens, from dark blue (low) to yellow (high).

    Colours span the scores of the whole prompt, so that its images can be compared. Where several
    grids overlap, their colours are averaged.

    Args:
        image: The image that the processor was given, or a frame of a video.
        sample: Its prompt, from `model.token_compression.last.samples` or
            `relevance(model, inputs).samples`.
        visual: Index of the image or video in the prompt, in order of appearance.
        frame: Index of the frame in the video's grid; 0 for an image.
        token_size: Minimum length in pixels of a token's shorter side; smaller images are enlarged.
        scale: "value" colours by score; "rank" by the rank of the score in the prompt, which keeps
            tokens distinguishable if a few scores exceed all others.

    Returns:
        An RGB image of the same size, or larger with the same proportions.

    Raises:
        IndexError: The prompt has no such image or video, or it has no such frame.
        ValueError: The prompt was not scored, `token_size` is below 1, or `scale` is unknown.
    """
    if sample.scores is None:
        raise ValueError(
            "This prompt has no scores, because all of its visual tokens were kept without "
            "scoring: run it with a retention ratio below 1."
        )
    check_choice("scale", scale, get_args(ScoreScale))
    # Map the scores of the prompt to colours.
    scores = sample.scores.cpu().numpy()  # [N]
    if scale == "rank":
        scores = np.unique(scores, return_inverse=True)[1]
    spread = np.ptp(scores)
    shares = (scores - scores.min()) / spread if spread > 0 else np.zeros(scores.shape)
    stops = np.linspace(0.0, 1.0, len(HEAT))
    channels = [np.interp(shares, stops, channel) for channel in HEAT.T]
    all_colours = np.stack(channels, axis=-1).astype(np.float32)  # [N, 3]
    grids = frame_grids(sample, visual, frame)
    image = legible(image, grids, token_size)
    grey = np.asarray(image, dtype=np.float32) @ _LUMA  # [H, W, 1]
    # Add up the colours of all grids, and lay their mean over the grey image.
    colours, covering = np.zeros((*grey.shape[:2], 3), dtype=np.float32), np.zeros_like(grey)
    for grid in grids:
        cells = Cells.over(image.size, grid)
        colours += cells.stretch(all_colours[grid.tokens])
        covering += cells.stretch(np.ones((*grid.tokens.shape, 1), dtype=np.float32))
    mixed = colours / np.maximum(covering, 1)  # [H, W, 3]
    opacity = np.where(covering > 0, np.float32(_HEAT_OPACITY), np.float32(0))
    return _to_image(grey + opacity * (mixed - grey))


def _to_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
