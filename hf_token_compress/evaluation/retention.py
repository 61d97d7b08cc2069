"""Accuracy by scorer and retention ratio: what compression costs, and what a scorer is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..compression import compress, uncompress
from ..config import TokenCompressionConfig
from ..data.metrics import MetricOption, is_right
from ..data.sample import Sample
from ..prompt import Modality
from ..scorers.mapper import MapperScorer
from .answering import answer_samples
from .questions import ALL
from .truth import TruthScorer, has_ground_truth

TRUTH = "truth"
"""Name, among scorers, of the oracle that keeps first what the answer depends on."""


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
    batch_size: int = 16,
    max_new_tokens: int = 64,
    metric: MetricOption = "auto",
    after_batch: Callable[[int], None] | None = None,
    after_result: Callable[[RetentionResult], None] | None = None,
) -> list[RetentionResult]:
    """Ask every question of the whole model, then with every scorer at every ratio.

    The model is given back uncompressed.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions, all with answers; see `Questions` for a file of them.
        scorers: Names of scorers; "truth" keeps first what the answer depends on, and
            "mapper:NAME" scores with the mapper of that folder or Hub id. Or scorers with options.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for.
        batch_size: Samples per batch.
        max_new_tokens: Longest answer, in tokens.
        metric: Which answers are right, as `hf_token_compress.data.metrics.is_right` takes it.
        after_batch: Called with the number of samples after each batch, for progress bars.
        after_result: Called with each result as soon as it is there.

    Returns:
        The uncompressed model's result, then one per scorer and ratio.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
        TypeError, ValueError: There is no such scorer or option, a ratio is out of range, a mapper
            is damaged or is not for this model or for what the samples show, or a sample lacks an
            answer, or the ground truth that "truth" needs. All of these are raised before the first
            question is asked.
    """
    asked = _Asked(samples, metric, ground_truth=TRUTH in scorers)
    planned: list[tuple[str, TokenCompressionConfig]] = []
    for scorer in scorers:
        label = scorer if isinstance(scorer, str) else scorer.label
        configs = [_config_of(scorer, ratio, mapper) for ratio in retention_ratios]
        for config in configs[:1]:  # the others have the same scorer
            _check_scorer(model, asked.modalities, config)
        planned.extend((label, config) for config in configs)

    ask = partial(
        answer_samples,
        model,
        processor,
        samples,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    results: list[RetentionResult] = []

    def add(result: RetentionResult) -> None:
        results.append(result)
        if after_result is not None:
            after_result(result)

    add(asked.result(None, 1.0, 1.0, ask(after_batch=after_batch)))
    for label, config in planned:
        kept_share, answers = _answer_compressed(model, ask, label, config, after_batch)
        add(asked.result(label, config.retention_ratio, kept_share, answers))
    return results


class _Asked:
    """What is known of the samples, which are read once for all results."""

    def __init__(
        self, samples: Sequence[Sample], metric: MetricOption, *, ground_truth: bool
    ) -> None:
        self.kinds: list[str] = []
        self.graders: list[Callable[[str], bool]] = []
        self.modalities: set[Modality] = set()
        for number, sample in enumerate(samples):
            if sample.answer is None:
                raise ValueError(f"Sample {number} has no answer: leave it out.")
            if ground_truth and not has_ground_truth(sample):
                raise ValueError(
                    f"The scorer {TRUTH} needs the relevant boxes of every sample, on its one "
                    f"image or frames, but sample {number} has none: leave that scorer out."
                )
            self.kinds.append(sample.kind or ALL)
            # Without its images, which are not kept.
            text = dataclasses.replace(sample, visuals=())
            self.graders.append(partial(is_right, sample=text, metric=metric))
            self.modalities.add(sample.modality)

    def result(
        self, scorer: str | None, ratio: float, kept_share: float, answers: Sequence[str]
    ) -> RetentionResult:
        """Count the right answers of each kind."""
        correct, asked = dict.fromkeys(self.kinds, 0), dict.fromkeys(self.kinds, 0)
        for kind, given, grader in zip(self.kinds, answers, self.graders, strict=True):
            asked[kind] += 1
            correct[kind] += grader(given)
        return RetentionResult(scorer, ratio, kept_share, correct, asked)


def _config_of(
    scorer: str | ConfiguredScorer, ratio: float, mapper: str | None
) -> TokenCompressionConfig:
    if isinstance(scorer, ConfiguredScorer):
        chosen: dict[str, Any] = {"scorer": scorer.scorer, "scorer_options": dict(scorer.options)}
    else:
        name, _, own_mapper = scorer.partition(":")
        chosen = {"scorer": "random" if name == TRUTH else name}
        if name == "mapper":
            chosen["mapper"] = own_mapper or mapper
    return TokenCompressionConfig(retention_ratio=ratio, min_visual_tokens=0, **chosen)


def _check_scorer(
    model: Any, modalities: Iterable[Modality], config: TokenCompressionConfig
) -> None:
    """Raise what asking with that scorer would raise, after all the scorers before it."""
    compress(model, config)
    scorer = model.token_compression.scorer
    uncompress(model)
    if isinstance(scorer, MapperScorer):
        for modality in modalities:
            scorer.mappers.for_modality(modality)


def _answer_compressed(
    model: Any,
    ask: Callable[..., list[str]],
    scorer: str,
    config: TokenCompressionConfig,
    after_batch: Callable[[int], None] | None,
) -> tuple[float, list[str]]:
    """The share of visual tokens that was kept, and the answers."""
    compress(model, config)
    truth = TruthScorer()
    if scorer == TRUTH:
        model.token_compression.scorer = truth

    def set_truth(batch: Sequence[Sample]) -> None:
        truth.samples = batch

    try:
        with model.token_compression.record() as totals:
            answers = ask(before_batch=set_truth, after_batch=after_batch)
    finally:
        uncompress(model)
    return totals.visual_tokens_after / totals.visual_tokens_before, answers


def retention_markdown(results: Sequence[RetentionResult]) -> str:
    """The results as a Markdown table: accuracy in percent, with its standard error over all."""
    kinds = named_kinds(results[0])
    lines = [
        "| " + " | ".join(["scorer", "kept", *kinds, ALL]) + " |",
        "|---|---|" + "---|" * (len(kinds) + 1),
    ]
    for result in results:
        cells = [f"{100 * result.accuracy(kind):.1f}" for kind in kinds]
        overall = f"{100 * result.accuracy():.1f} ± {100 * result.standard_error():.1f}"
        name = result.scorer or "(all visual tokens)"
        kept = f"{100 * result.kept_share:.0f} %"
        lines.append(f"| {name} | {kept} | " + " | ".join([*cells, overall]) + " |")
    return "\n".join(lines)


def named_kinds(result: RetentionResult) -> list[str]:
    """Kinds of questions to show beside the accuracy over all: none if the samples have none."""
    kinds = list(result.asked)
    return [] if kinds == [ALL] else kinds
