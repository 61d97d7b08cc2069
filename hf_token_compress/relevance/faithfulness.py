"""Faithfulness: what becomes of an answer as visual tokens are removed in order of relevance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import check_share
from .explain import explained_family, greedy_answers
from .model_state import ready_for_gradients
from .replay import Replay, make_replay

RETENTION_RATIOS = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Shares of the visual tokens that are kept along a curve."""


@dataclass(frozen=True)
class RemovalCurve:
    """An answer along a removal, from the whole prompt on.

    Attributes:
        retention_ratios: float64 [R], descending from 1.
        log_probabilities: float32 [R], of the whole answer, teacher-forced.
        matches: bool [R], whether each token of the answer is still the likeliest after those
            before it.
    """

    retention_ratios: Tensor
    log_probabilities: Tensor
    matches: Tensor

    @property
    def area(self) -> float:
        """Mean log-probability over the retention ratios, by the trapezoidal rule."""
        return self._mean(self.log_probabilities)

    @property
    def match_area(self) -> float:
        """Mean of `matches` over the retention ratios, by the trapezoidal rule."""
        return self._mean(self.matches)

    def _mean(self, values: Tensor) -> float:
        ratios = self.retention_ratios
        if len(ratios) == 1:
            return float(values[0])
        whole = torch.trapezoid(values.double().cpu(), ratios) / (ratios[-1] - ratios[0])
        return float(whole)


@dataclass(frozen=True)
class SampleFaithfulness:
    """The removals of one prompt.

    Attributes:
        least_first: The least relevant tokens are removed first: high where scores are faithful.
            It is what compression does.
        most_first: The most relevant tokens are removed first: low where scores are faithful.
        random: Tokens are removed in random order.
        answer_ids: int64 [T], the answer.
    """

    least_first: RemovalCurve
    most_first: RemovalCurve
    random: RemovalCurve
    answer_ids: Tensor


@dataclass(frozen=True)
class FaithfulnessReport:
    """Removals of a batch.

    Attributes:
        samples: One entry per prompt.
    """

    samples: tuple[SampleFaithfulness, ...]

    def mean_area(self, order: str = "least_first") -> float:
        """Mean over the prompts of the area under "least_first", "most_first" or "random"."""
        areas = [getattr(sample, order).area for sample in self.samples]
        return sum(areas) / len(areas)


def faithfulness(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    scores: Sequence[Tensor],
    *,
    answer_ids: Sequence[Tensor] | None = None,
    max_new_tokens: int = 16,
    retention_ratios: Sequence[float] = RETENTION_RATIOS,
    seed: int = 0,
) -> FaithfulnessReport:
    """Remove visual tokens in order of their scores, and follow the answer.

    Tokens are removed from the prompt as compression does it, with the positions of the others
    kept, and the answer is replayed behind the shorter prompt.

    Args:
        model: A loaded model of a supported family with a language model head.
        inputs: What the processor returned.
        scores: For each prompt, float [N] over its visual tokens, such as
            `[sample.scores for sample in relevance(model, inputs).samples]`.
        answer_ids: For each prompt, int64 [T]; by default the model's own greedy answer.
        max_new_tokens: Longest own answer.
        retention_ratios: Shares of the visual tokens to keep, in (0, 1].
        seed: Seed of the random order.

    Raises:
        TypeError, ValueError: As in `relevance`, or scores do not fit the prompts.
    """
    for ratio in retention_ratios:
        check_share("A retention ratio", ratio)
    ratios = sorted({1.0, *map(float, retention_ratios)}, reverse=True)
    family = explained_family(model)
    with ready_for_gradients(model), torch.no_grad():
        if answer_ids is None:
            answer_ids = greedy_answers(model, family, inputs, max_new_tokens)
        replay = make_replay(model, family, inputs, answer_ids)
        given = _checked(scores, replay)
        generator = torch.Generator().manual_seed(seed)
        shuffled = [torch.rand(len(item), generator=generator).to(item) for item in given]
        curves = [
            list(_curves(replay, order, ratios))
            for order in (given, [-item for item in given], shuffled)
        ]
    return FaithfulnessReport(
        tuple(
            SampleFaithfulness(least, most, random, answer)
            for least, most, random, answer in zip(*curves, replay.answers, strict=True)
        )
    )


def _curves(
    replay: Replay, scores: Sequence[Tensor], ratios: list[float]
) -> Iterator[RemovalCurve]:
    found = [
        replay.forward_pass(replay.keep_best(scores, ratio)).answer_log_probabilities()
        for ratio in ratios
    ]
    log_probabilities = torch.stack([item.sum(1) for item, _ in found], dim=1)  # [B, R]
    matches = torch.stack([likeliest.all(1) for _, likeliest in found], dim=1)  # [B, R]
    for row in range(len(scores)):
        yield RemovalCurve(
            torch.tensor(ratios, dtype=torch.float64), log_probabilities[row], matches[row]
        )


def _checked(scores: Sequence[Tensor], replay: Replay) -> list[Tensor]:
    columns = replay.visual_columns
    if len(scores) != len(columns):
        raise ValueError(
            f"scores must have one tensor per prompt, {len(columns)}, but has {len(scores)}."
        )
    for row, (own, places) in enumerate(zip(scores, columns, strict=True)):
        if own.shape != places.shape or not own.isfinite().all():
            raise ValueError(
                f"The scores of prompt {row} must be {len(places)} finite numbers, one for each of "
                f"its visual tokens, but have shape {list(own.shape)} or are not finite."
            )
    return [own.to(places.device) for own, places in zip(scores, columns, strict=True)]
