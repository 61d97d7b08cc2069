"""What images are painted on: surfaces, and colours that vary a little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A plain, graded or noisy surface."""
    first, second = rng.integers(20, 256, (2, 3))
    kind = rng.integers(3)
    if kind == 0:
        return Image.new("RGB", (width, height), tuple(int(v) for v in first))
    if kind == 1:
        ramp = np.linspace(0, 1, height)[:, None] * rng.uniform(-1, 1)
        ramp = ramp + np.linspace(0, 1, width)[None, :] * rng.uniform(-1, 1)
        ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
        pixels = first + ramp[..., None] * (second - first)
    else:
        coarse = rng.integers(-40, 41, (height // 4, width // 4, 1))
        pixels = first + coarse.repeat(4, 0).repeat(4, 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jittered(rng: np.random.Generator, colour: Sequence[int], amount: int) -> tuple[int, ...]:
    """The colour, each channel shifted by up to `amount`."""
    shift = rng.integers(-amount, amount + 1, 3)
    return tuple(int(v) for v in (np.asarray(colour) + shift).clip(0, 255))
