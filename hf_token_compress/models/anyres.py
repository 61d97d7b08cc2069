"""Images that are encoded twice: shrunk to one tile, and cut into tiles that form one fine grid.

Newline tokens lie on no grid: they are structure, which is kept before scores count. They all are
the same trained vector, but where they stand tells the language model how long rows are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.image_processing_utils import select_best_resolution
from typing_extensions import override

from ..prompt import Modality, TokenGrid, VisualLayout
from .family import ModelFamily, Size

Area = tuple[float, float, float, float]

# Transformers shrinks the grid over the tiles only if its side is this many times too long.
_SHRINKING_STARTS_AT = 1.1


class AnyresFamily(ModelFamily):
    """The size of an image is (height, width) in pixels, and False if it is not cut into tiles.

    Attributes:
        frame_pooling: The method of the base model that pools the frames of videos.
        packing_option: The field of the configuration that `pack_image_features` takes.
    """

    host_inputs = ("image_sizes", "batch_num_images")
    frame_pooling: ClassVar[str]
    packing_option: ClassVar[str]

    def image_layouts(self, config: Any, sizes: Sequence[Size]) -> list[VisualLayout]:
        """Where the visual tokens of each image lie on it."""
        geometry = AnyresGeometry(config)
        one_tile, cut = geometry.one_of_several_images, geometry.tiled_image
        return [
            (cut if all(tiled) else one_tile)((height, width)) for height, width, *tiled in sizes
        ]

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        (tiles,) = received
        # The model arranges them like features, of width 1.
        features = tiles[..., None]  # [tiles, patches, 1]
        inner, config = model.base_model, model.config
        if modality == "video":
            frames = getattr(inner, self.frame_pooling)(features)  # [frames, tokens, 1]
            videos = frames.reshape(len(counts), -1)  # [videos, frames * tokens]
            # Zero for a newline at the end.
            found = zip(videos, counts, strict=True)
            return [pad(own, (0, count - len(own))) for own, count in found]  # [N] each
        geometry = AnyresGeometry(config)
        tiles_of_images = [
            geometry.tiles((height, width)) if all(tiled) else 1
            for height, width, *tiled in self.sizes(config, inputs, modality, counts)
        ]
        packed, _ = inner.pack_image_features(
            features.split(tiles_of_images),
            inputs["image_sizes"],
            image_newline=features.new_zeros(1),
            **{self.packing_option: getattr(config, self.packing_option)},
        )
        return [own.flatten() for own in packed]  # [N] each


class AnyresGeometry:
    """Where the visual tokens of a model lie, as its `pack_image_features` arranges them."""

    def __init__(self, config: Any) -> None:
        vision = config.vision_config
        # (height, width) of every arrangement of tiles, in pixels.
        self._resolutions = [tuple(resolution) for resolution in config.image_grid_pinpoints]
        self._tile = vision.image_size  # side of a tile in pixels
        self._patch = vision.patch_size  # side of a patch in pixels
        self.side = self._tile // self._patch  # side of a tile in tokens
        self._pooled_side = math.ceil(self.side / 2)  # side of a frame in tokens
        # A larger fine grid is shrunk to the tokens of this many tiles, if any.
        most_tiles = getattr(config, "vision_aspect_ratio", "inf").removeprefix("anyres_max_")
        self._most_tiles = float(most_tiles)
        # Patches may leave the right and bottom edge of a tile uncovered.
        self._covered = self.side * self._patch / self._tile

    def tiled_image(self, size: tuple[int, int]) -> VisualLayout:
        """An image of (height, width) pixels that is cut into tiles."""
        base = self.side * self.side
        whole = torch.arange(base).view(1, self.side, self.side)
        rows, columns, area = self._fine_grid(size)
        # A newline token ends every row.
        fine = torch.arange(rows * (columns + 1)).view(1, rows, columns + 1) + base
        grids = [TokenGrid(whole, (0.0, 0.0, self._covered, self._covered))]
        # Very narrow images have no tile tokens, only newline tokens.
        if rows * columns > 0:
            grids.append(TokenGrid(fine[:, :, :-1], area))  # [1, rows, columns]
        return VisualLayout(base + fine.numel(), tuple(grids))

    def tiles(self, size: tuple[int, int]) -> int:
        """Tiles of such an image, the shrunken whole included."""
        height, width = select_best_resolution(size, self._resolutions)
        return 1 + (height // self._tile) * (width // self._tile)

    def one_of_several_images(self, size: tuple[int, int]) -> VisualLayout:
        """An image of (height, width) pixels that is not, but padded to a square."""
        height, width = size
        longest = max(height, width)
        left, top = (longest - width) // 2, (longest - height) // 2
        end = longest * self._covered
        area = (-left / width, -top / height, (end - left) / width, (end - top) / height)
        count = self.side * self.side
        index = torch.arange(count).view(1, self.side, self.side)
        return VisualLayout(count + 1, (TokenGrid(index, area),))

    def frames(self, tokens: int) -> int:
        """Frames of a video of that many visual tokens, including the newline."""
        pooled = self._pooled_side**2
        frames, rest = divmod(tokens - 1, pooled)
        if rest or frames < 1:
            raise ValueError(
                f"A video has {tokens} features, which are not whole frames of {pooled} and "
                "one newline: pass the features of the same processor call."
            )
        return frames

    def video(self, frames: int) -> VisualLayout:
        """A video of that many frames, and its newline."""
        side = self._pooled_side
        index = torch.arange(frames * side * side).view(frames, side, side)
        area = (0.0, 0.0, self._covered, self._covered)
        return VisualLayout(index.numel() + 1, (TokenGrid(index, area),))

    def _fine_grid(self, size: tuple[int, int]) -> tuple[int, int, Area]:
        """Rows, columns and area of the grid over the tiles, without its newlines."""
        height, width = size
        target: tuple[int, int] = select_best_resolution(size, self._resolutions)
        rows, columns = (length // self._tile * self.side for length in target)
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
        shrink = math.sqrt(rows * columns / (self._most_tiles * self.side**2))
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
            pitch = self._tile / self.side
            shift = (self._tile - self.side * self._patch) / 2
        resized = min(math.ceil(image_side * scale), length)
        offset = (length - resized) // 2 + shift
        return (first * pitch - offset) / resized, (last * pitch - offset) / resized
