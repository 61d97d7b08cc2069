"""The trained scorer: a mapper's prediction of relevance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from ..mapper import MapperSet, ModelIdentity, RelevanceMapper, load_mappers
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer
from .mapper_inputs import mapper_inputs


class MapperScorer(Scorer):
    """Relevance that a mapper predicts from layer-0 attention (arXiv 2506.01097, section 3).

    Args:
        mapper: A loaded mapper, or the folder or Hub id of one.
        revision: Branch, tag or commit on the Hub.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
        ValueError: A file of the mapper is damaged, or is no mapper's.
    """

    def __init__(
        self, mapper: str | RelevanceMapper | MapperSet, revision: str | None = None
    ) -> None:
        if isinstance(mapper, str):
            mapper = load_mappers(mapper, revision)
        self.mappers = MapperSet.of(mapper) if isinstance(mapper, RelevanceMapper) else mapper

    @override
    def check_model(self, identify: Callable[[], ModelIdentity]) -> None:
        self.mappers.check_model(identify())

    @property
    @override
    def scoring_depth(self) -> int:
        return self.mappers.scoring_depth

    @override
    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        device = prompt.inputs_embeds.device
        scores = torch.zeros(prompt.visual_mask.shape, device=device)  # [B, S]
        modalities = {visual.modality for visuals in prompt.visuals for visual in visuals}
        for modality in sorted(modalities):
            mapper = self.mappers.for_modality(modality).to(device)
            found = mapper_inputs(prompt, scoring_layer, modality)
            rows = [row for row, item in enumerate(found) if item is not None]
            relevance = mapper.relevance([item for item in found if item is not None])
            for row, shares in zip(rows, relevance, strict=True):
                columns = torch.cat(
                    [
                        visual.positions
                        for visual in prompt.visuals[row]
                        if visual.modality == modality
                    ]
                )
                # Images and videos of one prompt share what it keeps by their numbers of tokens.
                weight = len(columns) / prompt.visual_mask[row].sum()
                scores[row, columns.to(device)] = shares * weight
        return scores
