"""What vLLM asks about a model before any request."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ...config import TokenCompressionConfig
from ...models.family import ModelFamily
from ...models.registry import FAMILIES
from ...scorers import Scorer
from ...scorers.mapper import MapperScorer
from .setting import make_scorer, server_setting


class CompressingInfo:
    """A mixin that stands before the stock processing info of a model.

    Attributes:
        has_grid_positions: As in `server_setting`.
    """

    has_grid_positions = False
    ctx: Any

    @functools.cached_property
    def setting(self) -> TokenCompressionConfig:
        """The setting of the server."""
        hf_config = self.ctx.model_config.hf_config
        return server_setting(hf_config, has_grid_positions=self.has_grid_positions)

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Its scorer."""
        return make_scorer(self.setting)

    @functools.cached_property
    def family(self) -> ModelFamily:
        """The model's family."""
        return family_of(self.ctx.model_config.hf_config)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """How many images and videos a prompt may have; none where there is no mapper for them."""
        stock: Mapping[str, int | None] = super().get_supported_mm_limits()  # type: ignore[misc]
        if not isinstance(self.scorer, MapperScorer):
            return stock
        mappers = self.scorer.mappers.mappers
        return {modality: limit for modality, limit in stock.items() if modality in mappers}

    def validate_num_items(self, modality: Any, num_items: int) -> None:
        """Raise `ValueError` unless a prompt may have so many images or videos."""
        if num_items > 0 and isinstance(self.scorer, MapperScorer):
            self.scorer.mappers.for_modality(modality)
        super().validate_num_items(modality, num_items)  # type: ignore[misc]


def family_of(hf_config: Any) -> ModelFamily:
    """The family of a model with a compressed architecture."""
    family = FAMILIES.find(hf_config.model_type)
    assert family is not None, hf_config.model_type
    return family()
