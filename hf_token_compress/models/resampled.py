"""Visual tokens that each look at the whole image, as those of a resampler do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch import Tensor
from typing_extensions import override

from ..prompt import Modality, VisualLayout
from .family import ModelFamily, Size
from .tiles import JoinedTilesFamily


class ResampledFamily(ModelFamily):
    """Visual tokens lie nowhere on their image."""

    @override
    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        return [VisualLayout(count, ()) for (count,) in sizes]

    @override
    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> NoReturn:
        raise ValueError(
            f"A visual token of {type(model).__name__} stands for no patch: choose a scorer that "
            "does not need vision_attention."
        )


class Idefics2Family(ResampledFamily, JoinedTilesFamily):
    """Idefics2: an image is encoded whole, or as four tiles and whole."""

    @override
    def tile_tokens(self, config: Any, inputs: Mapping[str, Any]) -> int:
        tokens: int = config.perceiver_config.resampler_n_latents
        return tokens
