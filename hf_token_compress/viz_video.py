"""Pictures of what was kept of a video: a sheet of its frames, and an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .viz import contact_sheet, kept_per_frame, overlay

if TYPE_CHECKING:
    from .models.state import SampleReport

_COLUMNS = 4
_PAPER = (255, 255, 255)


def frame_overlays(
    frames: Sequence[Image.Image], sample: SampleReport, visual: int = 0, *, token_size: int = 16
) -> list[Image.Image]:
    """Every frame of a video with its kept visual tokens lit, as `viz.overlay` draws them.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt the video is, from 0, in order of appearance.
        token_size: Pixels that the shorter side of a token has at least.

    Returns:
        RGB images, one for every frame of the visual's grids. Models that join frames have fewer
        of those: the first of the joined frames is drawn.

    Raises:
        IndexError: The prompt has no such visual.
        ValueError: There are fewer frames than the visual has, or `token_size` is below 1.
    """
    counts = kept_per_frame(sample, visual)
    groups = _joined(len(frames), len(counts))
    return [
        overlay(frames[group[0]], sample, visual, frame=number, token_size=token_size)
        for number, group in enumerate(groups)
    ]


def frame_sheet(
    frames: Sequence[Image.Image],
    sample: SampleReport,
    visual: int = 0,
    *,
    title: str = "",
    token_size: int = 16,
) -> Image.Image:
    """All frames of a video on one sheet, each over the number of its tokens that were kept.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt the video is.
        title: Text over all frames.
        token_size: Pixels that the shorter side of a token has at least.

    Returns:
        An RGB image, four frames in a row.

    Raises:
        IndexError: The prompt has no such visual.
        ValueError: There are fewer frames than the visual has, or `token_size` is below 1.
    """
    counts = kept_per_frame(sample, visual)
    groups = _joined(len(frames), len(counts))
    panels = frame_overlays(frames, sample, visual, token_size=token_size)
    captions = [
        f"{_frame_name(group)}\n{kept} of {total} tokens"
        for group, (kept, total) in zip(groups, counts, strict=True)
    ]
    height = max(panel.height for panel in panels)
    rows = [
        contact_sheet(
            panels[first : first + _COLUMNS],
            captions[first : first + _COLUMNS],
            title="" if first else title,
            panel_height=height,
        )
        for first in range(0, len(panels), _COLUMNS)
    ]
    sheet = Image.new(
        "RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _PAPER
    )
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def save_animation(
    path: str | Path, images: Sequence[Image.Image], seconds_per_frame: float = 0.5
) -> None:
    """Write images as an animated GIF (or WebP or PNG, as the name ends) that starts over.

    Args:
        path: Where to write to.
        images: The frames, such as those of `frame_overlays`.
        seconds_per_frame: How long each is shown.

    Raises:
        ValueError: There are no images, or the name does not end as that of a picture file.
    """
    if not images:
        raise ValueError("save_animation needs at least one image.")
    first, *rest = images
    milliseconds = round(1000 * seconds_per_frame)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)


def _joined(given: int, frames: int) -> list[range]:
    """Which of the given frames each of the model's frames was made of."""
    if given < frames:
        raise ValueError(
            f"The video has {frames} frames of visual tokens, but only {given} frames were given: "
            "pass all frames that the processor was given."
        )
    # A model that joins n frames repeats the last one where their number is no multiple of n.
    joined = -(-given // frames)
    return [range(number * joined, min((number + 1) * joined, given)) for number in range(frames)]


def _frame_name(group: range) -> str:
    first, last = group.start + 1, group.stop
    return f"frame {first}" if first == last else f"frames {first}-{last}"
