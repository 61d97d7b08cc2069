"""Ask one batch of questions with one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..data.chat import encode_samples
from ..data.metrics import MetricOption, score_answer
from ..data.sample import Sample
from ..relevance.explain import encode_once
from .answering import answer_batch
from .digests import visuals_digest
from .downsampling import downsampled
from .questions import ALL
from .results import SampleResult
from .settings import FULL, EvaluationSetting
from .switching import SwitchedModel
from .teacher_forcing import (
    answer_ids,
    answer_log_probability,
    end_ids,
    first_tokens,
    forced_log_probabilities,
    mean_divergence,
)

FIRST_TOKENS = 8
"""Tokens of the uncompressed model's answer along which distributions are compared."""


@dataclass
class Batch:
    """Questions that go through the model at once, by their numbers in the data."""

    samples: Mapping[int, Sample]
    processor: Any
    model: SwitchedModel

    @cached_property
    def inputs(self) -> Any:
        """The encoded questions."""
        return self.encode(list(self.samples.values()))

    @cached_property
    def _with_features(self) -> dict[str, Any]:
        with torch.inference_mode():
            return encode_once(self.model.model, self.model.family, self.inputs)

    def inputs_of(self, setting: EvaluationSetting) -> Any:
        """The encoded questions as a setting gets them.

        Most settings share the features of one run of the vision tower.
        """
        return self.inputs if self.model.needs_pixels(setting) else self._with_features

    @cached_property
    def digests(self) -> list[str]:
        """Of each sample's images or video."""
        return [visuals_digest(sample.visuals) for sample in self.samples.values()]

    @cached_property
    def _full(self) -> dict[tuple[tuple[int, ...], ...], list[Tensor]]:
        return {}

    def full_distributions(self, answers: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Next-token distributions of the uncompressed model along answers, [T, V] each."""
        key = tuple(answers)
        if key not in self._full:
            with self.model.running(FULL, ()) as model:
                self._full[key] = forced_log_probabilities(model, self.inputs, answers)
        return self._full[key]

    def encode(self, samples: Sequence[Sample]) -> Any:
        """Model inputs, on the model's device."""
        return encode_samples(self.processor, samples).to(self.model.model.device)


@dataclass(frozen=True)
class Measures:
    """What is measured of every answer.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        metric: How answers are scored.
        divergence: Whether to measure `SampleResult.kl`.
        log_probability: Whether to measure `SampleResult.log_probability`.
    """

    max_new_tokens: int
    metric: MetricOption
    divergence: bool
    log_probability: bool

    def to_dict(self) -> dict[str, Any]:
        """What is measured, as JSON types."""
        metric: Any = self.metric
        if callable(metric):
            metric = getattr(metric, "__qualname__", type(metric).__qualname__)
        return {**asdict(self), "metric": metric}

    def of(
        self, batch: Batch, setting: EvaluationSetting, full: Mapping[int, SampleResult]
    ) -> list[SampleResult]:
        """Ask a batch with a setting.

        Args:
            batch: The questions.
            setting: The setting.
            full: The uncompressed model's results by number, unless the setting is `FULL`.

        Raises:
            ValueError: A question cannot be asked.
        """
        switched = batch.model
        samples = list(batch.samples.values())
        if setting.downsampled:
            samples = [
                downsampled(sample, full[number].visual_tokens_before, setting.config)
                for number, sample in batch.samples.items()
            ]
            inputs = batch.encode(samples)
        else:
            inputs = batch.inputs_of(setting)
        with switched.running(setting, samples) as model:
            answers = answer_batch(model, batch.processor, inputs, self.max_new_tokens)
            tokens = _visual_tokens(switched, inputs, setting)
            likely = self._log_probabilities(model, batch.processor, inputs, samples)
            divergences = self._divergences(model, batch, inputs, setting, full)
        ends = end_ids(switched.model)
        results = []
        for place, (number, sample) in enumerate(batch.samples.items()):
            text = answers.texts[place]
            agrees = setting == FULL or text == full[number].answer
            score = score_answer(text, sample, self.metric) if sample.answers else float(agrees)
            before, after = tokens[place]
            results.append(
                SampleResult(
                    number=number,
                    kind=sample.kind or ALL,
                    visual=batch.digests[place],
                    answer=text,
                    score=score,
                    agrees=agrees,
                    # A smaller image has fewer tokens from the start.
                    visual_tokens_before=(
                        full[number].visual_tokens_before if setting.downsampled else before
                    ),
                    visual_tokens_after=after,
                    kl=divergences[place],
                    log_probability=likely[place],
                    first_tokens=first_tokens(answers.new_tokens[place], FIRST_TOKENS, ends),
                )
            )
        return results

    def _divergences(
        self,
        model: Any,
        batch: Batch,
        inputs: Any,
        setting: EvaluationSetting,
        full: Mapping[int, SampleResult],
    ) -> list[float | None]:
        if not self.divergence or setting == FULL:
            return [0.0 if self.divergence else None] * len(batch.samples)
        answers = [full[number].first_tokens for number in batch.samples]
        own = forced_log_probabilities(model, inputs, answers)
        whole = batch.full_distributions(answers)
        return [mean_divergence(*pair) for pair in zip(whole, own, strict=True)]

    def _log_probabilities(
        self, model: Any, processor: Any, inputs: Any, samples: Sequence[Sample]
    ) -> list[float | None]:
        if not self.log_probability:
            return [None] * len(samples)
        answers = [answer_ids(processor, sample.expected_answer) for sample in samples]
        found = forced_log_probabilities(model, inputs, answers)
        return [answer_log_probability(*pair) for pair in zip(found, answers, strict=True)]


def _visual_tokens(
    switched: SwitchedModel, inputs: Any, setting: EvaluationSetting
) -> list[tuple[int, int]]:
    """Visual tokens of each prompt, and those that the language model saw in the last call."""
    if setting.scorer is None:
        return [(count, count) for count in switched.visual_tokens(inputs)]
    reports = switched.model.token_compression.last.samples
    return [(report.visual_tokens_before, report.visual_tokens_after) for report in reports]
