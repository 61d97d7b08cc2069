"""Relevance as predicted by a trained mapper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from ..checks import check_number
from ..mapper import MapperSet, ModelIdentity, RelevanceMapper, load_mappers
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .base import Scorer
from .mapper_inputs import mapper_inputs


class MapperScorer(Scorer):
    """Relevance that a mapper predicts (arXiv 2506.01097).

    Args:
        mapper: Mapper, or its folder or Hub id.
        revision: Branch, tag or commit on the Hub.
        temperature: The shares of the visual tokens are raised to 1 / temperature, above 0. Above 1
            it evens them out, which changes what `top_p` and `selection="diverse"` keep.

    Raises:
        MapperNotFoundError: The mapper does not exist, or the Hub cannot be reached or refuses.
        TypeError: `temperature` is not a number.
        ValueError: A file of the mapper is damaged or not of a mapper, or `temperature` is out of
            range.
    """

    needs = frozenset({"scoring_layer"})

    def __init__(
        self,
        mapper: str | RelevanceMapper | MapperSet,
        revision: str | None = None,
        temperature: float = 1.0,
    ) -> None:
        check_number("temperature of the scorer 'mapper'", temperature, "(0, inf)")
        self.temperature = temperature
        if isinstance(mapper, str):
            mapper = load_mappers(mapper, revision)
        self.mappers = MapperSet.of(mapper) if isinstance(mapper, RelevanceMapper) else mapper
        self.scoring_depth = self.mappers.scoring_depth

    @override
    def check_model(self, identify: Callable[[], ModelIdentity]) -> None:
        self.mappers.check_model(identify())

    @override
    def score(self, prompt: MultimodalPrompt, *, scoring_layer: ScoringLayer) -> Tensor:
        device = prompt.inputs_embeds.device
        scores = torch.zeros(prompt.visual_mask.shape, dtype=torch.float32, device=device)  # [B, S]
        modalities = {visual.modality for visuals in prompt.visuals for visual in visuals}
        for modality in sorted(modalities):
            mapper = self.mappers.for_modality(modality).to(device)
            inputs = mapper_inputs(prompt, scoring_layer, modality, mapper.config.inputs)
            samples = [sample for sample, item in enumerate(inputs) if item is not None]
            present = [item for item in inputs if item is not None]
            relevance = mapper.relevance(present, self.temperature)
            for sample, shares in zip(samples, relevance, strict=True):
                visuals = [item for item in prompt.visuals[sample] if item.modality == modality]
                positions = torch.cat([item.positions for item in visuals]).to(device)  # [N]
                # A prompt's images and videos share its budget in proportion to their tokens.
                weight = len(positions) / prompt.visual_mask[sample].sum().float()
                scores[sample, positions] = shares * weight
        return scores
