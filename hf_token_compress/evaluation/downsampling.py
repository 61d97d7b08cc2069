"""Smaller images instead of fewer tokens: the baseline of VTC-Bench (arXiv 2510.07143)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from PIL import Image

from ..config import TokenCompressionConfig
from ..data.sample import Sample
from ..selection import visual_token_budget


def downsampled(sample: Sample, visual_tokens: int, config: TokenCompressionConfig) -> Sample:
    """The sample with sides scaled by the root of the share of visual tokens that a budget keeps.

    How many tokens that makes is up to the processor.

    Args:
        sample: A sample with images, or with the frames of a video.
        visual_tokens: Visual tokens of its prompt.
        config: The budget.
    """
    scale = math.sqrt(visual_token_budget(visual_tokens, config) / visual_tokens)
    return dataclasses.replace(sample, visuals=_scaled(sample.visuals, scale))


def _scaled(visuals: tuple[Any, ...], scale: float) -> tuple[Any, ...]:
    return tuple(
        _smaller(item, scale) if isinstance(item, Image.Image) else _scaled(tuple(item), scale)
        for item in visuals
    )


def _smaller(image: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
