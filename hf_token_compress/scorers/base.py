"""The interface of a scorer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer

if TYPE_CHECKING:
    from ..mapper import ModelIdentity


class Scorer(ABC):
    """Gives every visual token of a prompt a score; the best-scored ones are kept.

    A scorer holds its options only: it must not keep tensors of one call for the next. Subclass
    it, implement `score`, and register it under a name:

    ```python
    @register_scorer("feature_norm")
    class FeatureNorm(Scorer):
        def score(self, prompt, scoring_layer):
            return prompt.inputs_embeds.norm(dim=-1)
    ```
    """

    @abstractmethod
    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        """Score a batch of prompts.

        Args:
            prompt: B prompts of S tokens.
            scoring_layer: Query and key path of decoder layer 0.

        Returns:
            float [B, S]; higher stays longer. Only the visual positions are read. It is called
            without gradients.
        """

    @property
    def scoring_depth(self) -> int:
        """Decoder layers that run on the whole prompt before the one that `score` is given.

        The default, 0, costs nothing; each more costs one layer of the uncompressed prefill.
        """
        return 0

    def check_model(self, identify: Callable[[], ModelIdentity]) -> None:
        """Raise `ValueError` if this scorer cannot score that model; called by `compress`.

        Args:
            identify: Tells which model it is.
        """
        return None


class ModelScorer(Scorer):
    """A scorer that runs the whole model on the whole prompt, for studies of what can be reached.

    It costs more than the compression saves.
    """

    @abstractmethod
    def score_with_model(
        self, prompt: MultimodalPrompt, model: Any, inputs: Mapping[str, Any]
    ) -> Tensor:
        """Score a batch of prompts with the model at hand.

        Args:
            prompt: B prompts of S tokens.
            model: The compressed model; it must be given back as it was.
            inputs: Keyword arguments of the stock forward for the whole prompts.

        Returns:
            float [B, S], as in `Scorer.score`.
        """

    def score(self, prompt: MultimodalPrompt, scoring_layer: ScoringLayer) -> Tensor:
        """Refuse: layer 0 alone is not enough.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{type(self).__name__} needs the whole model: use it through compress, or call "
            "score_with_model."
        )


def checked_scores(scores: object, prompt: MultimodalPrompt, scorer_name: str) -> Tensor:
    """The scores as float32 [B, S], after checking what a scorer returned.

    Raises:
        TypeError: Not a floating-point tensor.
        ValueError: Wrong shape, or a visual token's score is NaN or infinite.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(
            f"Scorer {scorer_name!r} must return a floating-point tensor, but returned {kind}."
        )
    if scores.shape != prompt.visual_mask.shape:
        raise ValueError(
            f"Scorer {scorer_name!r} must return one score per prompt position, shape "
            f"{list(prompt.visual_mask.shape)}, but returned shape {list(scores.shape)}."
        )
    scores = scores.detach().to(device=prompt.visual_mask.device, dtype=torch.float32)
    if not scores[prompt.visual_mask].isfinite().all():
        row = int((~scores.isfinite() & prompt.visual_mask).any(dim=1).nonzero()[0])
        raise ValueError(
            f"Scorer {scorer_name!r} gave NaN or infinite scores to visual tokens of prompt {row}: "
            "every visual token needs a finite score."
        )
    return scores
