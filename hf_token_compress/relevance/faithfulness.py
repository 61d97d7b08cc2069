"""Faithfulness: what happens to an answer as visual tokens are removed in order of relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import check_share
from .explain import encode_once, explained_family, greedy_answers
from .explained_twin import explained_twin
from .replay import Replay, make_replay

RETENTION_RATIOS = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Default shares of the visual tokens to keep along a curve."""


@dataclass(frozen=True)
class RemovalCurve:
    """How likely an answer stays as visual tokens are removed.

    Attributes:
        retention_ratios: float64 [R], descending from 1.
        log_probabilities: float32 [R], of the whole answer, teacher-forced.
        matches: bool [R], whether every token of the answer is still the likeliest one given the
            tokens before it.
    """

    retention_ratios: Tensor
    log_probabilities: Tensor
    matches: Tensor

    @property
    def area(self) -> float:
        """Mean log-probability over the retention ratios, by the trapezoidal rule."""
        ratios, values = self.retention_ratios, self.log_probabilities
        if len(ratios) == 1:
            return float(values[0])
        whole = torch.trapezoid(values.double().cpu(), ratios) / (ratios[-1] - ratios[0])
        return float(whole)


@dataclass(frozen=True)
class SampleFaithfulness:
    """Removal curves of one prompt.

    Attributes:
        least_first: The least relevant tokens are removed first, as in compression: high if the
            scores are faithful.
        most_first: The most relevant tokens are removed first: low if the scores are faithful.
        random: Tokens are removed in random order.
        answer_ids: int64 [T], the answer.
    """

    least_first: RemovalCurve
    most_first: RemovalCurve
    random: RemovalCurve
    answer_ids: Tensor


@dataclass(frozen=True)
class FaithfulnessReport:
    """Removal curves of each prompt of a batch."""

    samples: tuple[SampleFaithfulness, ...]

    def mean_area(self, order: str = "least_first") -> float:
        """Mean area over the prompts for the order "least_first", "most_first" or "random"."""
        areas = [getattr(sample, order).area for sample in self.samples]
        return sum(areas) / len(areas)


def faithfulness(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    scores: Sequence[Tensor],
    *,
    answer_ids: Sequence[Tensor] | None = None,
    max_new_tokens: int = 64,
    retention_ratios: Sequence[float] = RETENTION_RATIOS,
    seed: int = 0,
) -> FaithfulnessReport:
    """Measure how likely answers stay as visual tokens are removed in order of their scores.

    Tokens are removed as in compression: the other tokens keep their position ids, and the answer
    is replayed after the shorter prompt. The curves are those of Samek et al. 2017 (arXiv
    1509.06321) with tokens in place of image regions.

    Args:
        model: A loaded model of a supported family with a language model head.
        inputs: The processor's output.
        scores: For each prompt, float [N] over its visual tokens, such as
            `[sample.scores for sample in relevance(model, inputs).samples]`.
        answer_ids: For each prompt, int64 [T], its answer; by default the model's own greedy one.
        max_new_tokens: Length at which the model's own answers are cut off.
        retention_ratios: Shares of the visual tokens to keep, in (0, 1].
        seed: Seed of the random order.

    Returns:
        A report with the curves of each prompt.

    Raises:
        TypeError, ValueError: As for `relevance`, or the scores do not fit the prompts.
    """
    for ratio in retention_ratios:
        check_share("A retention ratio", ratio)
    ratios = sorted({1.0, *map(float, retention_ratios)}, reverse=True)
    family = explained_family(model)
    if answer_ids is None:
        inputs = encode_once(model, family, inputs)
        answer_ids = greedy_answers(model, family, inputs, max_new_tokens)
    with explained_twin(model) as twin, torch.no_grad():
        replay = make_replay(twin, family, inputs, answer_ids)
        given = _checked_scores(scores, replay.visual_positions)
        # Every order of removal is given by scores: the lowest go first.
        generator = torch.Generator().manual_seed(seed)
        shuffled = [torch.rand(len(item), generator=generator).to(item) for item in given]
        curves = [
            _curves(replay, order, ratios) for order in (given, [-item for item in given], shuffled)
        ]
    samples = map(SampleFaithfulness, *curves, replay.answers)
    return FaithfulnessReport(tuple(samples))


def _curves(
    replay: Replay, scores: Sequence[Tensor], ratios: Sequence[float]
) -> list[RemovalCurve]:
    """The curve of each prompt, with the tokens removed in the order of their scores."""
    log_probabilities, matches = [], []
    for ratio in ratios:
        replay_pass = replay.forward_pass(replay.keep_best(scores, ratio))
        likely, likeliest = replay_pass.answer_log_probabilities()  # [B, T]
        log_probabilities.append(likely.sum(1))
        matches.append(likeliest.all(1))
    x = torch.tensor(ratios, dtype=torch.float64)
    by_sample = zip(torch.stack(log_probabilities, 1), torch.stack(matches, 1), strict=True)
    return [RemovalCurve(x, likely, match) for likely, match in by_sample]  # [R] each


def _checked_scores(scores: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
    if len(scores) != len(positions):
        raise ValueError(
            f"scores must have one tensor per prompt, {len(positions)}, but has {len(scores)}."
        )
    for sample, (given, own) in enumerate(zip(scores, positions, strict=True)):
        if given.shape != own.shape or not given.isfinite().all():
            raise ValueError(
                f"The scores of prompt {sample} must be {len(own)} finite numbers, one per visual "
                f"token, but they have shape {list(given.shape)} or are not finite."
            )
    return [given.to(own.device) for given, own in zip(scores, positions, strict=True)]
