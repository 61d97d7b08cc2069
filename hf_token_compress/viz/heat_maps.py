"""Heat maps of a whole prompt, and of each token of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image

from .grids import ScoredPrompt, grids_of
from .overlays import ScoreScale, heat_map
from .sheets import contact_sheet
from .video import joined_frames

if TYPE_CHECKING:
    from ..relevance import SampleRelevance

    Visual = Image.Image | Sequence[Image.Image]

_COLUMNS = 6


def prompt_heat_maps(
    visuals: Sequence[Visual],
    sample: ScoredPrompt,
    *,
    title: str = "",
    scale: ScoreScale = "value",
) -> Image.Image:
    """Draw heat maps of all images and videos of a prompt on one sheet.

    Args:
        visuals: The images and videos that the processor was given, in order of appearance: an
            image, or a list of all frames of a video.
        sample: The prompt, as in `heat_map`.
        title: Text over the sheet.
        scale: "value" or "rank", as in `heat_map`.

    Returns:
        An RGB image with one panel per image and per frame of a video's grid.

    Raises:
        ValueError: The prompt has another number of images and videos, frames of a video are
            missing, or the prompt was not scored.
    """
    maps, captions = _panels(visuals, sample, scale)
    return contact_sheet(maps, captions, title=title, columns=_COLUMNS)


def answer_heat_maps(
    visuals: Sequence[Visual],
    sample: SampleRelevance,
    words: Sequence[str],
    *,
    title: str = "",
    scale: ScoreScale = "value",
) -> Image.Image:
    """Draw what each token of an answer depends on: one heat map per token, on one sheet.

    Each token has its own colour range, so that tokens with little relevance stay readable.

    Args:
        visuals: As in `prompt_heat_maps`.
        sample: One of `relevance(model, inputs, return_per_token=True).samples`.
        words: The answer's tokens as text, such as `processor.decode(token)` for each of
            `sample.answer_ids`.
        title: Text over the sheet.
        scale: "value" or "rank", as in `heat_map`.

    Returns:
        An RGB image.

    Raises:
        ValueError: The sample has no relevance per token, or another number of tokens than words;
            also as for `prompt_heat_maps`.
    """
    if sample.per_token is None:
        raise ValueError(
            "This sample has no relevance per answer token: call relevance with "
            "return_per_token=True."
        )
    if len(words) != len(sample.per_token):
        raise ValueError(
            f"answer_heat_maps needs one word per answer token, but got {len(words)} words for "
            f"{len(sample.per_token)} tokens."
        )
    maps: list[Image.Image] = []
    captions: list[str] = []
    for word, scores in zip(words, sample.per_token, strict=True):
        own, names = _panels(visuals, replace(sample, scores=scores), scale)
        maps += own
        shown = word.strip() or repr(word)
        captions += [shown if len(names) == 1 else f"{shown}\n{name}" for name in names]
    return contact_sheet(maps, captions, title=title, columns=_COLUMNS)


def _panels(
    visuals: Sequence[Visual], sample: ScoredPrompt, scale: ScoreScale
) -> tuple[list[Image.Image], list[str]]:
    """One heat map per image and per frame of a video's grid, and their captions."""
    if len(visuals) != len(sample.visuals):
        raise ValueError(
            f"The prompt has {len(sample.visuals)} images and videos, but {len(visuals)} were "
            "given: pass all that the processor was given."
        )
    maps, captions = [], []
    for number, (given, span) in enumerate(zip(visuals, sample.visuals, strict=True)):
        frames = [given] if isinstance(given, Image.Image) else list(given)
        steps = joined_frames(len(frames), len(grids_of(sample, number)[0].index))
        for step, group in enumerate(steps):
            maps.append(heat_map(frames[group[0]], sample, number, frame=step, scale=scale))
            name = f"{span.modality.capitalize()} {number + 1}"
            captions.append(name if len(steps) == 1 else f"{name}, step {step + 1}")
    return maps, captions
