"""VideoLLaMA 3: its processor may leave out tokens of frames that resemble the frame before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .family import ModelFamily, Size, needed_input
from .visuals import EncodedVisuals

_LEFT_OUT = "video_compression_mask"


class VideoLlama3Family(ModelFamily):
    """The tokens of a video that some were left out of lie on no grid."""

    @override
    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        visuals = super().features(model, inputs, modality)
        mask = inputs.get(_LEFT_OUT)
        if modality == "image" or mask is None:
            return visuals
        counts = [len(own) for own in visuals.features]
        if len(mask) != sum(counts):
            raise ValueError(
                f"{_LEFT_OUT} has {len(mask)} entries, but the videos have {sum(counts)} tokens: "
                "pass both from the same processor call."
            )
        return visuals.cut(mask.split(counts))

    @override
    def replaced_inputs(self) -> set[str]:
        # The features lack these tokens already.
        return super().replaced_inputs() | {_LEFT_OUT}

    @override
    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        grids = needed_input(inputs, f"{modality}_grid_thw", modality).tolist()
        merges = needed_input(inputs, f"{modality}_merge_sizes", modality).tolist()
        whole = [
            (frames, height // merge, width // merge)
            for (frames, height, width), merge in zip(grids, merges, strict=True)
        ]
        pairs = zip(whole, counts, strict=True)
        return [size if math.prod(size) == count else (count,) for size, count in pairs]

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        return [
            VisualLayout(size[0], ()) if len(size) == 1 else VisualLayout.row_major(*size)
            for size in sizes
        ]
