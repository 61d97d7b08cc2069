"""The overlay of a photograph with an EXIF rotation lies on the image that the model saw."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_token_compress.viz import overlay

from ..common import FAMILIES, WHAT, encode, image, make_pair
from ..outcome import report

ORIENTATION, ROTATED = 0x0112, 6
"""EXIF tag, and the value that turns an image by 90 degrees."""


def problems() -> Iterator[str]:
    """Compare the overlay of the photograph with that of the image as the model saw it."""
    upright = image(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.png"
        exif = Image.Exif()
        exif[ORIENTATION] = ROTATED
        upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        for family in FAMILIES:
            _, model, processor = make_pair(family)
            reference = encode(processor, (upright, WHAT))["pixel_values"]
            for how, shown in (("an image", Image.open(path)), ("a path", str(path))):
                inputs = encode(processor, (shown, WHAT))
                pixels = inputs["pixel_values"]
                saw_upright = pixels.shape == reference.shape and torch.allclose(
                    pixels, reference, atol=0.05
                )
                with torch.no_grad():
                    model(**inputs)
                (sample,) = model.token_compression.last.samples
                seen = upright if saw_upright else Image.open(path).copy()
                found, expected = overlay(Image.open(path), sample), overlay(seen, sample)
                if found.size != expected.size or _apart(found, expected) > 3:
                    yield (
                        f"{family}, {how}: the overlay is {found.size}, what the model saw is "
                        f"{expected.size}"
                    )


def _apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


if __name__ == "__main__":
    report(problems)
