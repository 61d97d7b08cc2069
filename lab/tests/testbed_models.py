"""The testbed for tests, if its parts are installed."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
import torch
from PIL import Image

from lab.testbed.parts import check_parts

REQUIRED = "HF_TOKEN_COMPRESS_TESTBED_REQUIRED"
"""Environment variable that makes tests fail if a part is missing, instead of skipping them."""


def need_parts() -> None:
    """Skip the test if a part of the testbed is not installed; fail it under `REQUIRED`."""
    try:
        check_parts()
    except ImportError as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(error))


@functools.cache
def assembled(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The testbed with an untrained projector, and its processor; tests must not change them."""
    from lab.testbed import assemble

    return assemble(dtype=dtype)


def noise_image(seed: int, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """An image of coloured noise in 8 x 8 plates; `size` is (width, height) in pixels."""
    generator = torch.Generator().manual_seed(seed)
    plates = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(plates.numpy()).resize(size, Image.Resampling.NEAREST)
