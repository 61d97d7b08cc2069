"""The interface of a scorer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..prompt import MultimodalPrompt
from ..selection import Candidates

if TYPE_CHECKING:
    from ..mapper import ModelIdentity

Need = Literal["scoring_layer", "unrotated_layer", "vision_attention", "word_statistics", "model"]
"""What a scorer may need besides the prompt."""


class Scorer(ABC):
    """Gives every visual token of a prompt a score; the tokens with the highest scores are kept.

    A scorer holds its options only, and no tensors between calls. Subclass it, implement `score`,
    and register it under a name:

    ```python
    @register_scorer("feature_norm")
    class FeatureNorm(Scorer):
        def score(self, prompt):
            return prompt.inputs_embeds.norm(dim=-1)
    ```

    Attributes:
        needs: What `score` gets besides the prompt, as keyword arguments; only that is computed.
            "scoring_layer" is the `ScoringLayer` of the decoder. "unrotated_layer" is that of
            layer 0 without RoPE, as if all tokens were in one place. "vision_attention" is the
            attention that the patches of each visual token receive in the second-to-last layer of
            the vision tower (arXiv 2412.04467, section 3), float32 [B, S] and zero elsewhere: from
            the tower's CLS token, or else the mean over all patches of the image, tile or frame,
            averaged over heads. It costs one more layer of the tower. "word_statistics" is the
            `WordStatistics` of the word embeddings, computed once per model. "model" brings
            `model`, the loaded model, and `inputs`, the arguments of its stock forward for the
            whole prompts; such a scorer costs more than compression saves and shows what a cheap
            one can reach.
        scoring_depth: Decoder layers that run on the whole prompt before the scoring layer. Each
            costs one layer of the uncompressed prefill. The scoring layer is the next one with
            attention: in a hybrid decoder, layers without attention may have to run at 0 too.
        ranks_only: Whether only the order of the scores means anything, so that neither shares of
            them (`top_p`) nor products with them (`selection="diverse"`) can be used.
    """

    needs: frozenset[Need] = frozenset()
    ranks_only: ClassVar[bool] = False
    scoring_depth: int = 0

    @abstractmethod
    def score(self, prompt: MultimodalPrompt, *args: Any, **needed: Any) -> Tensor:
        """Score a batch of prompts; called without gradients.

        Args:
            prompt: B prompts of S tokens.
            *args: None are passed.
            **needed: What `needs` names.

        Returns:
            float [B, S]; the highest scores stay. Only visual positions are read.
        """

    def select(
        self, prompt: MultimodalPrompt, sample: int, candidates: Candidates
    ) -> Tensor | None:
        """Choose the tokens of one prompt, for rules whose choice depends on how many are kept.

        Called without gradients after `score`, for every prompt that drops tokens.

        Args:
            prompt: As in `score`.
            sample: Which prompt of the batch.
            candidates: Its N visual tokens with their scores, and how many of them to choose.

        Returns:
            int64 [candidates.count], distinct indices into the N tokens, none of them kept already;
            or None, as here, if the setting's `selection` chooses.
        """
        return None

    @property
    def selects(self) -> bool:
        """Whether the scorer chooses tokens itself."""
        return type(self).select is not Scorer.select

    def check_model(self, identify: Callable[[], ModelIdentity]) -> None:
        """Raise `ValueError` if the scorer does not fit a model; called by `compress`.

        Args:
            identify: Returns the identity of the model.
        """
        return None

    def query_mask(self, prompt: MultimodalPrompt) -> Tensor:
        """Tokens whose queries `scoring_layer` has, bool [B, S]: by default the instruction."""
        return prompt.query_mask


class NotFiniteError(ValueError):
    """The score of a visual token is NaN or infinite."""


def checked_scores(scores: object, prompt: MultimodalPrompt, scorer_name: str) -> Tensor:
    """The scores of a scorer as float32 [B, S], after a check.

    On an accelerator, where the host would wait for the values, these are left to `check_finite`.

    Raises:
        TypeError: They are not a floating-point tensor.
        ValueError: They have the wrong shape, or on a CPU: the score of a visual token is NaN or
            infinite.
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
    if scores.device.type == "cpu":
        check_finite(scores, prompt.visual_mask, scorer_name)
    return scores


def check_finite(scores: Tensor, visual_mask: Tensor, scorer_name: str) -> None:
    """Check the scores of visual tokens; the host waits for them.

    Args:
        scores: float32 [B, S].
        visual_mask: bool [B, S].
        scorer_name: For the message.

    Raises:
        NotFiniteError: The score of a visual token is NaN or infinite.
    """
    invalid = ~scores.isfinite() & visual_mask  # [B, S]
    if invalid.any():
        sample = int(invalid.any(dim=1).nonzero()[0])
        raise NotFiniteError(
            f"Scorer {scorer_name!r} gave NaN or infinite scores to visual tokens of prompt "
            f"{sample}: every visual token needs a finite score."
        )


def checked_choice(chosen: object, candidates: Candidates, scorer_name: str) -> Tensor:
    """What a scorer's `select` returned, after a check.

    Raises:
        TypeError: It is not an int64 tensor.
        ValueError: It does not choose as many other tokens as are asked for.
    """
    if not isinstance(chosen, Tensor) or chosen.dtype != torch.int64:
        kind = chosen.dtype if isinstance(chosen, Tensor) else type(chosen).__name__
        raise TypeError(
            f"Scorer {scorer_name!r} must choose tokens by an int64 tensor, but returned {kind}."
        )
    kept, count = candidates.kept, candidates.count
    chosen = chosen.to(kept.device)
    known = torch.arange(len(kept), device=kept.device)
    free = torch.isin(known, chosen) & ~kept  # [N]
    if chosen.shape != (count,) or int(free.sum()) != count:
        raise ValueError(
            f"Scorer {scorer_name!r} must choose {count} tokens that are not kept yet, each once, "
            f"but chose {chosen.flatten().tolist()}."
        )
    return chosen


def own_rule(
    scorer: Scorer, prompt: MultimodalPrompt, scorer_name: str
) -> Callable[[int, Candidates], Tensor | None] | None:
    """The scorer's `select` for a sample of the prompts, with its check; None if it has none."""
    if not scorer.selects:
        return None

    def rule(sample: int, candidates: Candidates) -> Tensor | None:
        chosen = scorer.select(prompt, sample, candidates)
        return None if chosen is None else checked_choice(chosen, candidates, scorer_name)

    return rule
