"""Accuracy by scorer and retention ratio: what compression costs, and what a scorer is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compression import compress, uncompress
from ..config import TokenCompressionConfig
from ..data.tasks import Sample
from ..scorers.mapper import MapperScorer
from .answering import answer_samples
from .truth import TruthScorer

TRUTH = "truth"
"""Name, among scorers, of the ceiling that keeps what the answer truly rests on."""


@dataclass(frozen=True)
class ConfiguredScorer:
    """A scorer with options, and what results call it.

    Attributes:
        label: Name in results.
        scorer: Name of the scorer.
        options: Its keyword arguments.
    """

    label: str
    scorer: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RetentionResult:
    """Accuracy of one scorer at one retention ratio.

    Attributes:
        scorer: Name or label of the scorer; None for the uncompressed model.
        retention_ratio: Share of visual tokens asked for; 1.0 for the uncompressed model.
        kept_share: Share of visual tokens that was kept, mean over the samples.
        correct: For each kind of question, how many answers were right.
        asked: For each kind of question, how many were asked.
    """

    scorer: str | None
    retention_ratio: float
    kept_share: float
    correct: dict[str, int]
    asked: dict[str, int]

    def accuracy(self, kind: str | None = None) -> float:
        """Share of right answers, of one kind or of all."""
        kinds = self.asked if kind is None else (kind,)
        return sum(self.correct[item] for item in kinds) / sum(self.asked[item] for item in kinds)

    def standard_error(self, kind: str | None = None) -> float:
        """Binomial standard error of `accuracy`."""
        asked = sum(self.asked.values()) if kind is None else self.asked[kind]
        accuracy = self.accuracy(kind)
        return math.sqrt(accuracy * (1 - accuracy) / asked)


def measure_retention(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    scorers: Sequence[str | ConfiguredScorer],
    retention_ratios: Sequence[float],
    mapper: str | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 16,
    after_batch: Callable[[int], None] | None = None,
) -> list[RetentionResult]:
    """Ask every question of the whole model, then with every scorer at every ratio.

    An answer is right if it equals the sample's answer to the letter. The model is given back
    uncompressed.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions.
        scorers: Names of scorers; "truth" keeps first what the answer truly rests on, and
            "mapper:NAME" scores with the mapper of that folder or Hub id. Or scorers with options.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for.
        batch_size: Samples a batch.
        max_new_tokens: Longest answer, in tokens.
        after_batch: Called with the number of samples after each batch, for progress bars.

    Returns:
        The uncompressed model's result, then one per scorer and ratio.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
        TypeError, ValueError: There is no such scorer or option, a ratio is out of range, or a
            mapper is damaged or is not for this model or for what the samples show. All of these
            are raised before the first question is asked.
    """
    planned: list[tuple[str, TokenCompressionConfig]] = []
    for scorer in scorers:
        label = scorer if isinstance(scorer, str) else scorer.label
        configs = [_config_of(scorer, ratio, mapper) for ratio in retention_ratios]
        for config in configs[:1]:  # the others have the same scorer
            _check_scorer(model, samples, config)
        planned.extend((label, config) for config in configs)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "after_batch": after_batch,
    }
    answers = answer_samples(model, processor, samples, **options)
    results = [_result(None, 1.0, 1.0, samples, answers)]
    for label, config in planned:
        results.append(_measure(model, processor, samples, label, config, options))
    return results


def _config_of(
    scorer: str | ConfiguredScorer, ratio: float, mapper: str | None
) -> TokenCompressionConfig:
    if isinstance(scorer, ConfiguredScorer):
        return TokenCompressionConfig(
            retention_ratio=ratio,
            scorer=scorer.scorer,
            scorer_options=dict(scorer.options),
            min_visual_tokens=0,
        )
    name, _, own_mapper = scorer.partition(":")
    return TokenCompressionConfig(
        retention_ratio=ratio,
        scorer="random" if name == TRUTH else name,
        mapper=(own_mapper or mapper) if name == "mapper" else None,
        min_visual_tokens=0,
    )


def _check_scorer(model: Any, samples: Sequence[Sample], config: TokenCompressionConfig) -> None:
    """Raise what asking with that scorer would raise, after all the scorers before it."""
    compress(model, config)
    scorer = model.token_compression.scorer
    uncompress(model)
    if isinstance(scorer, MapperScorer):
        for sample in samples:
            scorer.mappers.for_modality("video" if sample.frames else "image")


def _measure(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    scorer: str,
    config: TokenCompressionConfig,
    options: dict[str, Any],
) -> RetentionResult:
    compress(model, config)
    truth = TruthScorer()
    if scorer == TRUTH:
        model.token_compression.scorer = truth
    before, after = 0, 0
    finished = options["after_batch"]

    def set_truth(batch: Sequence[Sample]) -> None:
        truth.samples = batch

    def count_tokens(asked: int) -> None:
        nonlocal before, after
        for report in model.token_compression.last.samples:
            before += report.visual_tokens_before
            after += report.visual_tokens_after
        if finished is not None:
            finished(asked)

    try:
        answers = answer_samples(
            model,
            processor,
            samples,
            before_batch=set_truth,
            **{**options, "after_batch": count_tokens},
        )
    finally:
        uncompress(model)
    return _result(scorer, config.retention_ratio, after / before, samples, answers)


def _result(
    scorer: str | None,
    ratio: float,
    kept_share: float,
    samples: Sequence[Sample],
    answers: Sequence[str],
) -> RetentionResult:
    kinds = list(dict.fromkeys(sample.kind for sample in samples))
    correct, asked = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    for sample, answer in zip(samples, answers, strict=True):
        asked[sample.kind] += 1
        correct[sample.kind] += answer == sample.answer
    return RetentionResult(scorer, ratio, kept_share, correct, asked)


def retention_markdown(results: Sequence[RetentionResult]) -> str:
    """The results as a Markdown table: accuracy in percent, with its standard error over all."""
    kinds = list(results[0].asked)
    lines = [
        "| scorer | kept | " + " | ".join(kinds) + " | all |",
        "|---|---|" + "---|" * (len(kinds) + 1),
    ]
    for result in results:
        cells = [f"{100 * result.accuracy(kind):.1f}" for kind in kinds]
        overall = f"{100 * result.accuracy():.1f} ± {100 * result.standard_error():.1f}"
        name = result.scorer or "(all visual tokens)"
        kept = f"{100 * result.kept_share:.0f} %"
        lines.append(f"| {name} | {kept} | " + " | ".join([*cells, overall]) + " |")
    return "\n".join(lines)
