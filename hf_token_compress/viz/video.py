"""Images of what was kept of a video: its frames in a strip, on a sheet, and animated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageColor

from .figures import COLOURS
from .grids import grids_of
from .pictures import kept_per_frame, overlay
from .sheets import PAPER, contact_sheet

if TYPE_CHECKING:
    from ..compression.report import SampleReport

_COLUMNS = 4
_STRIP_COLUMNS = 8
_STRIP_BAR = 0.4
# The curves' first colour, on a grey that is lighter than it to every eye.
_BAR, _BAR_GROUND = ImageColor.getrgb(COLOURS[0]), (233, 233, 238)


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
    groups = joined_frames(len(frames), len(grids_of(sample, visual)[0].index))
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
    groups, counts = _groups_and_counts(frames, sample, visual)
    panels = frame_overlays(frames, sample, visual, token_size=token_size)
    return contact_sheet(panels, _captions(groups, counts), title=title, columns=_COLUMNS)


def frame_strip(
    frames: Sequence[Image.Image],
    sample: SampleReport,
    visual: int = 0,
    *,
    title: str = "",
    frame_height: int = 120,
    columns: int = _STRIP_COLUMNS,
) -> Image.Image:
    """The frames of a video in a row, over bars of how many of their tokens were kept.

    The bar of the frame that kept most tokens has the full height, so that frames can be compared
    at every ratio; the numbers stand below.

    Args:
        frames: The frames that the processor was given, of any mode.
        sample: Report of the prompt, from `model.token_compression.last.samples`.
        visual: Which image or video of the prompt the video is.
        title: Text over all frames.
        frame_height: Pixels of the frames' height.
        columns: Most frames in a row; more are set in further rows.

    Returns:
        An RGB image.

    Raises:
        IndexError: The prompt has no such visual.
        ValueError: There are fewer frames than the visual has, or `frame_height` or `columns` is
            below 1.
    """
    if frame_height < 1:
        raise ValueError(f"frame_height must be at least 1, but it is {frame_height}.")
    groups, counts = _groups_and_counts(frames, sample, visual)
    most = max(kept for kept, _ in counts)
    bar_height = round(_STRIP_BAR * frame_height)
    gap = max(2, frame_height // 30)
    panels = []
    for drawn, (kept, _) in zip(frame_overlays(frames, sample, visual), counts, strict=True):
        width = max(1, round(drawn.width * frame_height / drawn.height))
        panel = Image.new("RGB", (width, frame_height + gap + bar_height), PAPER)
        panel.paste(drawn.resize((width, frame_height), Image.Resampling.LANCZOS), (0, 0))
        filled = round(bar_height * kept / most) if most else 0
        left, right = width // 4, width - width // 4
        panel.paste(_BAR_GROUND, (left, frame_height + gap, right, panel.height))
        panel.paste(_BAR, (left, panel.height - filled, right, panel.height))
        panels.append(panel)
    return contact_sheet(panels, _captions(groups, counts), title=title, columns=columns)


def save_animation(
    path: str | Path, images: Sequence[Image.Image], seconds_per_frame: float = 0.5
) -> None:
    """Write images as an animated GIF (or WebP or PNG, as the name ends) that starts over.

    Args:
        path: Where to write to.
        images: The frames, such as those of `frame_overlays`.
        seconds_per_frame: How long each is shown.

    Raises:
        ValueError: There are no images, or the name does not end as that of an image file.
    """
    if not images:
        raise ValueError("save_animation needs at least one image.")
    first, *rest = images
    milliseconds = round(1000 * seconds_per_frame)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)


def joined_frames(given: int, frames: int) -> list[range]:
    """Which of the given frames each of the model's frames was made of.

    Raises:
        ValueError: Fewer frames are given than the model has.
    """
    if given < frames:
        raise ValueError(
            f"The video has {frames} frames of visual tokens, but only {given} frames were given: "
            "pass all frames that the processor was given."
        )
    # A model that joins n frames repeats the last one where their number is no multiple of n.
    joined = -(-given // frames)
    return [range(number * joined, min((number + 1) * joined, given)) for number in range(frames)]


def _groups_and_counts(
    frames: Sequence[Image.Image], sample: SampleReport, visual: int
) -> tuple[list[range], list[tuple[int, int]]]:
    counts = kept_per_frame(sample, visual)
    return joined_frames(len(frames), len(counts)), counts


def _captions(groups: Sequence[range], counts: Sequence[tuple[int, int]]) -> list[str]:
    return [
        f"{_frame_name(group)}\n{kept} of {total} tokens"
        for group, (kept, total) in zip(groups, counts, strict=True)
    ]


def _frame_name(group: range) -> str:
    first, last = group.start + 1, group.stop
    return f"frame {first}" if first == last else f"frames {first}-{last}"
