"""The kept tokens of a video: its frames in a strip, on a sheet, and animated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageColor

from .figures import COLOURS
from .grids import frame_grids, grids_of
from .overlays import overlay
from .sheets import PAPER, contact_sheet, scaled_to_height

if TYPE_CHECKING:
    from ..compression.report import SampleReport

# The first colour of curves, on a grey that is much lighter.
_BAR, _BAR_BACKGROUND = ImageColor.getrgb(COLOURS[0]), (233, 233, 238)


def frame_overlays(
    frames: Sequence[Image.Image], sample: SampleReport, visual: int = 0
) -> list[Image.Image]:
    """Draw every frame of a video with its kept visual tokens lit, as `overlay` does.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Index of the video among the prompt's images and videos, in order of appearance.

    Returns:
        RGB images, one per frame of the video's grids. For models that join several frames into
        one, the first of the joined frames is drawn.

    Raises:
        IndexError: The prompt has no such video.
        ValueError: Frames of the video are missing.
    """
    groups = joined_frames(len(frames), len(grids_of(sample, visual)[0].index))
    return [
        overlay(frames[group[0]], sample, visual, frame=number, token_size=16)
        for number, group in enumerate(groups)
    ]


def frame_sheet(
    frames: Sequence[Image.Image], sample: SampleReport, visual: int = 0, *, title: str = ""
) -> Image.Image:
    """Draw all frames of a video on one sheet, each over the number of its kept tokens.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Index of the video among the prompt's images and videos.
        title: Text over all frames.

    Returns:
        An RGB image, four frames in a row.

    Raises:
        IndexError, ValueError: As for `frame_overlays`.
    """
    panels = frame_overlays(frames, sample, visual)
    captions = _captions(len(frames), kept_per_frame(sample, visual))
    return contact_sheet(panels, captions, title=title, columns=4)


def frame_strip(
    frames: Sequence[Image.Image],
    sample: SampleReport,
    visual: int = 0,
    *,
    title: str = "",
    frame_height: int = 120,
    columns: int = 8,
) -> Image.Image:
    """Draw the frames of a video in a row, over bars that show how many tokens each kept.

    The frame with the most kept tokens has a full bar, so that frames can be compared at every
    ratio; the numbers are below.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Index of the video among the prompt's images and videos.
        title: Text over all frames.
        frame_height: Height of the frames in pixels.
        columns: Maximum number of frames in a row.

    Returns:
        An RGB image.

    Raises:
        IndexError: The prompt has no such video.
        ValueError: Frames of the video are missing, or `frame_height` or `columns` is below 1.
    """
    if frame_height < 1:
        raise ValueError(f"frame_height must be at least 1, but it is {frame_height}.")
    # Scale the bars to the frame with the most kept tokens.
    counts = kept_per_frame(sample, visual)
    most = max(kept for kept, _ in counts)
    bar_height = round(0.4 * frame_height)
    gap = max(2, frame_height // 30)
    panels = []
    # Paste each frame over its bar.
    for drawn, (kept, _) in zip(frame_overlays(frames, sample, visual), counts, strict=True):
        scaled = scaled_to_height(drawn, frame_height)
        width = scaled.width
        panel = Image.new("RGB", (width, frame_height + gap + bar_height), PAPER)
        panel.paste(scaled, (0, 0))
        filled = round(bar_height * kept / most) if most else 0
        left, right = width // 4, width - width // 4
        panel.paste(_BAR_BACKGROUND, (left, frame_height + gap, right, panel.height))
        panel.paste(_BAR, (left, panel.height - filled, right, panel.height))
        panels.append(panel)
    captions = _captions(len(frames), counts)
    return contact_sheet(panels, captions, title=title, columns=columns)


def save_animation(
    path: str | Path, images: Sequence[Image.Image], seconds_per_frame: float = 0.5
) -> None:
    """Write images as an animation that repeats.

    Args:
        path: The file to write; its ending chooses GIF, WebP or PNG.
        images: The frames, such as those of `frame_overlays`.
        seconds_per_frame: Seconds for which each frame is shown.

    Raises:
        ValueError: There are no images, or the file name has no ending of an image format.
    """
    if not images:
        raise ValueError("save_animation needs at least one image.")
    first, *rest = images
    milliseconds = round(1000 * seconds_per_frame)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)


def kept_per_frame(sample: SampleReport, visual: int = 0) -> list[tuple[int, int]]:
    """Count the kept and all visual tokens of every frame of a video; an image is one frame.

    Args:
        sample: Report of its prompt, from `model.token_compression.last.samples`.
        visual: Index of the video among the prompt's images and videos, in order of appearance.

    Returns:
        For each frame of the video's grids, the number of kept tokens and that of all tokens.

    Raises:
        IndexError: The prompt has no such image or video.
    """
    kept = sample.kept_visual.cpu().numpy()  # [N]
    counts = []
    for frame in range(len(grids_of(sample, visual)[0].index)):
        tokens = [grid.tokens for grid in frame_grids(sample, visual, frame)]
        counts.append((sum(int(kept[t].sum()) for t in tokens), sum(t.size for t in tokens)))
    return counts


def joined_frames(given: int, frames: int) -> list[range]:
    """For each frame of a video's grids, the indices of the given frames that were joined in it."""
    if given < frames:
        raise ValueError(
            f"The video has {frames} frames of visual tokens, but only {given} frames were given: "
            "pass all frames that the processor was given."
        )
    # A model that joins n frames repeats the last one if their number is not a multiple of n.
    joined = -(-given // frames)
    return [range(number * joined, min((number + 1) * joined, given)) for number in range(frames)]


def _captions(given: int, counts: Sequence[tuple[int, int]]) -> list[str]:
    captions = []
    for group, (kept, total) in zip(joined_frames(given, len(counts)), counts, strict=True):
        first, last = group.start + 1, group.stop
        name = f"frame {first}" if first == last else f"frames {first}-{last}"
        captions.append(f"{name}\n{kept} of {total} tokens")
    return captions
