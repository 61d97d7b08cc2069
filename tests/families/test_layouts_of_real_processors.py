"""What a family's real processor makes of images and videos lies where its layouts say.

One patch of an image is painted before the processor sees it. Attention of the vision tower is
silenced, so that only features of visual tokens that show the patch may change.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy
import pytest
import torch
from pairs import HALF
from PIL import Image
from tiny_models import TinyFamily, marked_families, tiny_family, tiny_model
from torch import Tensor, nn

from hf_token_compress import compress
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.models.registry import model_family
from hf_token_compress.prompt import Modality, TokenGrid, VisualSpan

pytestmark = [
    pytest.mark.core,
    # GLM-4V's processor makes arrays of tensors.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

OUTPUT_OF_ATTENTION = re.compile(r"att(n|ention)\b.*\.(o_proj|out_proj|proj|projection_layer)$")
COLOUR = (250, 20, 120)
FRAMES = 8

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the image."""


@dataclass(frozen=True)
class Example:
    """A prompt of a family with several images, or with one video.

    Attributes:
        visuals: uint8 [height, width, 3] of each image, or of each frame.
    """

    family: str
    modality: Modality
    visuals: tuple[numpy.ndarray, ...]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the family's processor makes of it."""
        maker = tiny_family(self.family)
        processor = maker.processor()
        if self.modality == "video":
            text = f"w1 w2 {maker.video_text(processor)} w3 w4 <end> w5"
            return maker.process(processor, text=[text], videos=[numpy.stack(self.visuals)])
        own = [maker.image_text(processor)] * len(self.visuals)
        text = f"w1 w2 {' w3 '.join(own)} w4 w5 <end> w6"
        images = [[Image.fromarray(visual) for visual in self.visuals]]
        return maker.process(processor, text=[text], images=images)

    def features(self, model: Any) -> list[Tensor]:
        """Features of each image, or of the video, float [N, D]."""
        with torch.no_grad():
            family = model_family(type(model))
            return family.features(model, self.inputs, self.modality).features

    def painted(self, numbers: list[int], box: Box) -> Example:
        """With another colour in most of a box of some images or frames."""
        visuals = [visual.copy() for visual in self.visuals]
        for visual in (visuals[number] for number in numbers):
            height, width = visual.shape[:2]
            # Resizing spreads the colour a little, so leave the edges of the box as they are.
            inset = [0.85 * a + 0.15 * b for a, b in zip(box, (*box[2:], *box[:2]), strict=True)]
            left, right = round(inset[0] * width), round(inset[2] * width)
            top, bottom = round(inset[1] * height), round(inset[3] * height)
            visual[top:bottom, left:right] = COLOUR
        return replace(self, visuals=tuple(visuals))


def example(family: str, modality: Modality, images: int) -> Example:
    """Images of grey noise."""
    sizes = tiny_family(family).image_sizes[:images]
    if modality == "video":
        sizes = sizes[:1] * FRAMES
    noise = numpy.random.default_rng(0)
    drawn = [noise.integers(60, 196, (*size, 3), dtype=numpy.uint8) for size in sizes]
    return Example(family, modality, tuple(drawn))


def silenced(family: str) -> Any:
    """A stock model whose vision tower does not mix its patches."""
    model = tiny_model(family=family)
    for name, module in tiny_family(family).visual_tower(model).named_modules():
        if OUTPUT_OF_ATTENTION.search(name):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    return model


def boxes_of_cells(grid: TokenGrid) -> Tensor:
    """The box of each cell of a frame, float64 [rows, columns, 4]."""
    _, rows, columns = grid.shape
    left, top, right, bottom = grid.area
    x = torch.linspace(left, right, columns + 1, dtype=torch.float64)
    y = torch.linspace(top, bottom, rows + 1, dtype=torch.float64)
    starts = torch.stack(torch.meshgrid(x[:-1], y[:-1], indexing="xy"), dim=-1)
    ends = torch.stack(torch.meshgrid(x[1:], y[1:], indexing="xy"), dim=-1)
    return torch.cat([starts, ends], dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """Area of each box, float64 [...]."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def shared_areas(boxes: Tensor, box: Box) -> Tensor:
    """Area that each box shares with another one, float64 [...]."""
    own = torch.tensor(box, dtype=torch.float64)
    starts, ends = boxes[..., :2].maximum(own[:2]), boxes[..., 2:].minimum(own[2:])
    return areas(torch.cat([starts, ends], dim=-1))


def places(visual: VisualSpan) -> Iterator[tuple[int, Box]]:
    """Some frames, and cells of the finest grid that lie on the image."""
    finest = max(visual.grids, key=lambda grid: grid.shape[1] * grid.shape[2])
    whole = boxes_of_cells(finest).flatten(0, 1)  # [cells, 4]
    on_image = whole.clamp(0, 1)
    inside = on_image[areas(on_image) > 0.7 * areas(whole)]
    for share in (0, 0.3, 0.6, 1):
        left, top, right, bottom = inside[round(share * (len(inside) - 1))].tolist()
        yield round(share * (finest.shape[0] - 1)), (left, top, right, bottom)


def assert_changed_where_it_lies(visual: VisualSpan, change: Tensor, frame: int, box: Box) -> None:
    """Compare the change of each visual token, float [N], with where it lies."""
    on_grids = torch.cat([grid.index.flatten() for grid in visual.grids])
    assert len(on_grids.unique()) == len(on_grids)
    structure = torch.ones(len(change), dtype=torch.bool)
    structure[on_grids] = False
    assert not change[structure].any()
    for grid in visual.grids:
        shared = torch.zeros(grid.shape, dtype=torch.float64)
        shared[frame] = shared_areas(boxes_of_cells(grid), box)
        own = change[grid.index]  # [frames, rows, columns]
        assert own.max() > 0
        assert shared.flatten()[own.argmax()] >= 0.5 * shared.max() > 0


def check(family: str, modality: Modality, images: int = 2) -> None:
    original = example(family, modality, images)
    stock = silenced(family)
    compressed = compress(copy.deepcopy(stock), HALF)
    with torch.no_grad():
        assert compressed(**original.inputs).logits.isfinite().all()
    prompt, _ = read_prompt(stock, original.inputs)
    before = original.features(stock)
    assert [len(own) for own in before] == [len(own.positions) for own in prompt.visuals[0]]
    assert len(before) == (1 if modality == "video" else len(original.visuals))
    for number, visual in enumerate(prompt.visuals[0]):
        if not visual.grids:
            # Each token must be made of the whole image, or it would have a place.
            after = original.painted([number], (0.1, 0.1, 0.4, 0.4)).features(stock)[number]
            assert (after != before[number]).any(dim=-1).float().mean() > 0.9
        for frame, box in places(visual) if visual.grids else ():
            shown = [number]
            if modality == "video":
                (grid,) = visual.grids
                shown = [own for own in range(FRAMES) if own * grid.shape[0] // FRAMES == frame]
            after = original.painted(shown, box).features(stock)
            changes = [(a - b).norm(dim=-1) for a, b in zip(after, before, strict=True)]
            assert not any(own.any() for own in changes[:number] + changes[number + 1 :])
            assert_changed_where_it_lies(visual, changes[number], frame, box)


def families_with(modality: Modality) -> list[Any]:
    """Families that can build a processor for it."""
    found = []
    for parameter in marked_families():
        maker = tiny_family(parameter.values[0])
        overrides = [type(maker).processor is not TinyFamily.processor]
        if modality == "video":
            overrides += [maker.takes_videos, type(maker).video_text is not TinyFamily.video_text]
        if all(overrides):
            found.append(parameter)
    return found


def alone() -> list[Any]:
    """All of them; by default one that is laid out otherwise than one of several images."""
    found = families_with("image")
    return [
        own
        if own.values[0] == "llava_onevision"
        else pytest.param(*own.values, marks=[*own.marks, pytest.mark.matrix])
        for own in found
    ]


@pytest.mark.parametrize("family", families_with("image"))
def test_several_images(family: str) -> None:
    check(family, "image")


@pytest.mark.parametrize("family", alone())
def test_an_image_alone(family: str) -> None:
    """LLaVA-OneVision tiles the only image of a prompt."""
    check(family, "image", images=1)


@pytest.mark.parametrize("family", families_with("video"))
def test_videos(family: str) -> None:
    check(family, "video")
