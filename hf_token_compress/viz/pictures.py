"""Images of what was kept: tokens lit over the image, scores as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .grids import Cells, ScoredPrompt, frame_grids, grids_of, legible

if TYPE_CHECKING:
    from ..compression.report import SampleReport

ScoreScale = Literal["value", "rank"]

_LUMA: NDArray[np.float32] = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
_DIMMED_BRIGHTNESS = np.float32(0.38)
_DIMMED_COLOUR = np.float32(0.25)
# Amber stands out from dimmed tokens by its lightness, which every eye sees, whatever its hue.
_BORDER = (255, 176, 0)
_INNER_BORDER_OPACITY = 0.4

# Nine stops of viridis: lightness rises evenly, so that order is seen without telling hues apart.
HEAT = np.array(
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


def overlay(
    image: Image.Image,
    sample: SampleReport,
    visual: int = 0,
    *,
    frame: int = 0,
    token_size: int = 32,
) -> Image.Image:
    """Light the kept visual tokens of an image and dim the dropped ones.

    Every token is drawn where it lies on the image, whatever the processor did to it: resized,
    padded, cut into tiles. Kept tokens keep their pixels inside a thin border; dropped ones lose
    most of their colour and brightness. Where several grids lie over each other, such as a coarse
    one and one over tiles, a pixel is lit by the share of them that keep it. Tokens on no grid,
    such as newlines, are not drawn.

    Args:
        image: The image that the processor was given, of any mode and size; for a video, its
            frame.
        sample: Report of its prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt it is, from 0, in order of appearance.
        frame: Which frame of the visual's grid; 0 for an image.
        token_size: Pixels that the shorter side of a token has at least: smaller images are
            enlarged. 1 leaves every image whose tokens have a pixel at its size.

    Returns:
        An RGB image of the image's size, or larger in the same proportions.

    Raises:
        IndexError: The prompt has no such visual, or the visual no such frame.
        ValueError: `token_size` is below 1.
    """
    grids = frame_grids(sample, visual, frame)
    picture = legible(image, grids, token_size)
    pixels = np.asarray(picture, dtype=np.float32)  # [H, W, 3]
    all_kept = sample.kept_visual.cpu().numpy()  # [N]
    shape = pixels.shape[:2]
    lit, covering = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    inner, outline = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for grid in grids:
        kept = all_kept[grid.tokens]  # [rows, columns]
        cells = Cells.over(picture.size, grid)
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
    """Colour an image by the scores of its visual tokens, dark blue (low) to yellow (high).

    Colours span the scores of the whole prompt, so that its images can be compared. Where several
    grids lie over each other, their colours are mixed.

    Args:
        image: The image that the processor was given; for a video, its frame.
        sample: Its prompt, from `model.token_compression.last.samples` or from
            `relevance(model, inputs).samples`.
        visual: Which image or video of the prompt it is, from 0, in order of appearance.
        frame: Which frame of the visual's grid; 0 for an image.
        token_size: Pixels that the shorter side of a token has at least.
        scale: "value" colours by the score itself; "rank" by its place among the prompt's scores,
            which still tells tokens apart where a few scores outweigh all others.

    Returns:
        An RGB image of the image's size, or larger in the same proportions.

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
    grids = frame_grids(sample, visual, frame)
    picture = legible(image, grids, token_size)
    grey = _grey(np.asarray(picture, dtype=np.float32))  # [H, W, 1]
    colours, covering = np.zeros((*grey.shape[:2], 3), dtype=np.float32), np.zeros_like(grey)
    for grid in grids:
        cells = Cells.over(picture.size, grid)
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
    for frame in range(len(grids_of(sample, visual)[0].index)):
        tokens = [grid.tokens for grid in frame_grids(sample, visual, frame)]
        counts.append((sum(int(kept[t].sum()) for t in tokens), sum(t.size for t in tokens)))
    return counts


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma of RGB pixels: [H, W, 3] → [H, W, 1]."""
    return pixels @ _LUMA


def _dimmed(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    grey = _grey(pixels)
    dimmed: NDArray[np.float32] = _DIMMED_BRIGHTNESS * (grey + _DIMMED_COLOUR * (pixels - grey))
    return dimmed


def _heat_colours(shares: NDArray[Any]) -> NDArray[np.float32]:
    """Shares in [0, 1] → RGB, [..., 3]."""
    stops = np.linspace(0.0, 1.0, len(HEAT))
    channels = [np.interp(shares, stops, channel) for channel in HEAT.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def _to_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
