"""Plain sizes are enough to know where visual tokens lie, as a serving engine has nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import make_pair
from tiny_models import ONE_IMAGE, ONE_VIDEO, TWO_IMAGES, Prompt, make_inputs, tiny_config

from hf_token_compress.models.registry import FAMILIES


@pytest.mark.core
@pytest.mark.parametrize(
    ("family", "prompt", "sizes"),
    [
        ("qwen2_vl", ONE_IMAGE, [[1, 12, 16]]),
        ("qwen2_vl", TWO_IMAGES, [[1, 8, 12], [1, 12, 12]]),
        ("qwen2_vl", ONE_VIDEO, [[2, 8, 12]]),
        ("llava_next", ONE_IMAGE, [[24, 32]]),
        ("llava_next_video", ONE_VIDEO, [[2, 2, 2]]),
        ("idefics2", ONE_IMAGE, [[16], [16]]),
        ("llava_onevision", ONE_IMAGE, [[24, 32, True]]),
        ("llava_onevision", TWO_IMAGES, [[16, 24, False], [24, 24, False]]),
        ("llava_onevision", ONE_VIDEO, [[2]]),
        ("vila15", ONE_IMAGE, [[1]]),
        ("vila15", ONE_VIDEO, [[2]]),
    ],
)
def test_layouts_from_sizes_alone_are_those_of_the_model(
    family: str, prompt: Prompt, sizes: Any
) -> None:
    modality: Any = "video" if prompt is ONE_VIDEO else "image"
    family_class: Any = FAMILIES.find(family)
    layouts = family_class().layouts(tiny_config(family=family), sizes, modality)
    _, compressed = make_pair(family=family)
    compressed(**make_inputs([prompt], family=family))
    visuals = compressed.token_compression.last.samples[0].visuals
    assert [layout.count for layout in layouts] == [len(own.positions) for own in visuals]
    for layout, own in zip(layouts, visuals, strict=True):
        for grid, expected in zip(layout.grids, own.grids, strict=True):
            assert torch.equal(grid.index, expected.index)
            assert grid.area == expected.area
