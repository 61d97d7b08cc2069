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
from .mapper_inputs import mapper_batch


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
        device = scoring_layer.key.device
        shape = prompt.visual_mask.shape
        scores = torch.zeros(shape, dtype=torch.float32, device=device).flatten()  # [B * S]
        modalities = {visual.modality for visuals in prompt.visuals for visual in visuals}
        for modality in sorted(modalities):
            mapper = self.mappers.for_modality(modality).to(device)
            batch = mapper_batch(prompt, scoring_layer, modality, mapper.config.inputs)
            assert batch is not None, modality
            shares = mapper.shares(batch.inputs, self.temperature)  # [P, N]
            # A prompt's images and videos share its budget in proportion to their tokens. Padding
            # adds zeros.
            scores.index_add_(0, batch.places, (shares * batch.weights).flatten())
        return scores.view(shape)
