"""LLaVA-OneVision: images as a whole image, tiles and newlines; videos as pooled frames.

The only image of a prompt is encoded twice: shrunk to one tile, and cut into tiles whose tokens
form one fine grid with a newline token after every row. If a prompt has several images, each is
one tile and one newline token. A video is its frames and one newline token.

Newline tokens lie on no grid, but they are visual tokens like the others: each is kept or dropped
by its own score. They all are the same trained vector, so dropping one loses no information, and
every kept token keeps its own position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel
from transformers.image_processing_utils import select_best_resolution
from typing_extensions import override

from ..prompt import Modality, TokenGrid, VisualLayout
from .family import CompressedVisionOutput, EncodedVisuals, ModelFamily

Area = tuple[float, float, float, float]

_VISION_OPTIONS = ("vision_feature_layer", "vision_feature_select_strategy")
# Transformers shrinks the grid over the tiles only if its side is this many times too long.
_SHRINKING_STARTS_AT = 1.1


class LlavaOnevisionFamily(ModelFamily):
    """`LlavaOnevisionForConditionalGeneration` and `LlavaOnevisionModel`."""

    model_classes = (LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel)
    consumed_inputs = ("image_sizes", "batch_num_images", "image_sizes_videos")

    @override
    def encode(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        given = (inputs.get("mm_encoder_outputs") or {}).get(modality)
        options = {name: inputs.get(name) for name in _VISION_OPTIONS}
        encode = self._encode_images if modality == "image" else self._encode_videos
        return encode(model, inputs, given, options)

    @override
    def vision_output(self, features: Any, modality: Modality) -> CompressedVisionOutput:
        output_class = _RaggedVideoOutput if modality == "video" else CompressedVisionOutput
        return output_class(pooler_output=features)

    def _encode_images(
        self, model: Any, inputs: Mapping[str, Any], given: Any, options: dict[str, Any]
    ) -> EncodedVisuals:
        sizes = inputs.get("image_sizes")
        if sizes is None:
            raise ValueError(
                "The prompt has images, but image_sizes is missing: pass everything that the "
                "processor returned."
            )
        counts = inputs.get("batch_num_images")
        if given is None:
            given = model.get_image_features(
                inputs["pixel_values"],
                sizes,
                batch_num_images=counts,
                return_dict=True,
                **options,
            )
        tiled = [True] * len(sizes)
        if counts is not None:
            tiled = [int(count) == 1 for count in counts for _ in range(int(count))]
        if len(tiled) != len(sizes):
            raise ValueError(
                f"batch_num_images counts {len(tiled)} images, but image_sizes has "
                f"{len(sizes)}: pass both from the same processor call."
            )
        geometry = _Geometry(model.config)
        layouts = []
        for (height, width), is_tiled in zip(sizes, tiled, strict=True):
            place = geometry.tiled_image if is_tiled else geometry.one_of_several_images
            layouts.append(place((int(height), int(width))))
        return EncodedVisuals(list(given.pooler_output), layouts)

    def _encode_videos(
        self, model: Any, inputs: Mapping[str, Any], given: Any, options: dict[str, Any]
    ) -> EncodedVisuals:
        if given is None:
            pixels = inputs["pixel_values_videos"]
            if not isinstance(pixels, Tensor) or pixels.ndim != 5:
                raise ValueError(
                    "pixel_values_videos must be one tensor [videos, frames, channels, height, "
                    "width]: sample the same number of frames from each video."
                )
            given = model.get_video_features(pixels, return_dict=True, **options)
        geometry = _Geometry(model.config)
        features = list(given.pooler_output)  # [frames * pooled + 1, D] each
        layouts = [geometry.video(len(tokens)) for tokens in features]
        return EncodedVisuals(features, layouts)


class _RaggedFeatures(list[Tensor]):
    """Features of videos that keep different numbers of tokens, float [K, D] each."""

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """All features, [total, D]: the stock forward calls this on a tensor [videos, K, D]."""
        return torch.cat(self)


@dataclass
class _RaggedVideoOutput(CompressedVisionOutput):
    """Video features that `generate` can repeat video by video, as it does with lists."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "pooler_output" and isinstance(value, list):
            value = _RaggedFeatures(value)
        super().__setattr__(name, value)


class _Geometry:
    """Where the visual tokens of a model lie, as its `pack_image_features` arranges them."""

    def __init__(self, config: Any) -> None:
        vision = config.vision_config
        # (height, width) of every arrangement of tiles, in pixels.
        self._resolutions = [tuple(resolution) for resolution in config.image_grid_pinpoints]
        self._tile = vision.image_size  # side of a tile in pixels
        self._patch = vision.patch_size  # side of a patch in pixels
        self._side = self._tile // self._patch  # side of a tile in tokens
        # A larger fine grid is shrunk to the tokens of this many tiles.
        self._most_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        # Patches may leave the right and bottom edge of a tile uncovered.
        self._covered = self._side * self._patch / self._tile

    def tiled_image(self, size: tuple[int, int]) -> VisualLayout:
        """The only image of a prompt, of (height, width) pixels."""
        base = self._side * self._side
        whole = torch.arange(base).view(1, self._side, self._side)
        rows, columns, area = self._fine_grid(size)
        # A newline token ends every row.
        fine = torch.arange(rows * (columns + 1)).view(1, rows, columns + 1) + base
        grids = [TokenGrid(whole, (0.0, 0.0, self._covered, self._covered))]
        # Very narrow images have no tile tokens, only newline tokens.
        if rows * columns > 0:
            grids.append(TokenGrid(fine[:, :, :-1], area))  # [1, rows, columns]
        return VisualLayout(base + fine.numel(), tuple(grids))

    def one_of_several_images(self, size: tuple[int, int]) -> VisualLayout:
        """One of several images of a prompt, of (height, width) pixels: padded to a square."""
        height, width = size
        longest = max(height, width)
        left, top = (longest - width) // 2, (longest - height) // 2
        end = longest * self._covered
        area = (-left / width, -top / height, (end - left) / width, (end - top) / height)
        count = self._side * self._side
        index = torch.arange(count).view(1, self._side, self._side)
        return VisualLayout(count + 1, (TokenGrid(index, area),))

    def video(self, tokens: int) -> VisualLayout:
        """A video of that many visual tokens, including the newline."""
        side = math.ceil(self._side / 2)
        frames, rest = divmod(tokens - 1, side * side)
        if rest or frames < 1:
            raise ValueError(
                f"A video has {tokens} features, which are not whole frames of {side * side} and "
                "one newline: pass the features of the same processor call."
            )
        index = torch.arange(tokens - 1).view(frames, side, side)
        area = (0.0, 0.0, self._covered, self._covered)
        return VisualLayout(tokens, (TokenGrid(index, area),))

    def _fine_grid(self, size: tuple[int, int]) -> tuple[int, int, Area]:
        """Rows, columns and area of the grid over the tiles, without its newlines."""
        height, width = size
        target: tuple[int, int] = select_best_resolution(size, self._resolutions)
        rows, columns = (length // self._tile * self._side for length in target)
        top, left = 0, 0
        # The image fills the tiles in one direction and is centred in the other. There, rows or
        # columns that only show padding are cut off.
        if width / height > columns / rows:
            top = (rows - int(round(height * (columns / width), 7))) // 2
        else:
            left = (columns - int(round(width * (rows / height), 7))) // 2
        # The area that the remaining tokens cover.
        scale = min(target[0] / height, target[1] / width)
        across = self._span(left, columns - left, target[1], width, scale)
        down = self._span(top, rows - top, target[0], height, scale)
        area = (across[0], down[0], across[1], down[1])
        # Shrink a grid that is too fine.
        rows, columns = rows - 2 * top, columns - 2 * left
        shrink = math.sqrt(rows * columns / (self._most_tiles * self._side**2))
        if shrink > _SHRINKING_STARTS_AT:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return rows, columns, area

    def _span(
        self, first: int, last: int, length: int, image_side: int, scale: float
    ) -> tuple[float, float]:
        """Begin and end of tokens first to last - 1, as shares of the image's side.

        Tokens are counted over all tiles in this direction, which are `length` pixels long. The
        image's side in pixels is resized by the factor `scale`.
        """
        pitch, shift = float(self._patch), 0.0
        if length > self._tile:
            # Every tile has an uncovered edge: an even grid through all tiles is off by at most
            # half of it.
            pitch = self._tile / self._side
            shift = (self._tile - self._side * self._patch) / 2
        resized = min(math.ceil(image_side * scale), length)
        offset = (length - resized) // 2 + shift
        return (first * pitch - offset) / resized, (last * pitch - offset) / resized
