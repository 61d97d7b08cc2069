"""Accuracy by scorer and retention ratio: what compression costs, and what a scorer is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..data.metrics import MetricOption
from ..data.sample import Sample
from ..notices import warn
from .engine import Evaluator
from .questions import ALL
from .results import RetentionResult
from .settings import ConfiguredScorer, settings_of


def measure_retention(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    scorers: Sequence[str | ConfiguredScorer],
    retention_ratios: Sequence[float] = (),
    max_visual_tokens: Sequence[int] = (),
    downsample: bool = False,
    mapper: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    metric: MetricOption = "auto",
    after_batch: Callable[[int], None] | None = None,
    **changes: Any,
) -> list[RetentionResult]:
    """Ask every question of the whole model, then with every scorer at every ratio.

    The model is given back uncompressed. `Evaluator` measures more, and continues stopped runs.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions. Without answers, those of the whole model count as right.
        scorers: Names of scorers; "truth" keeps first what the answer depends on, and
            "mapper:NAME" scores with the mapper of that folder or Hub id. Or scorers with options.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        max_visual_tokens: Numbers of visual tokens to keep of each prompt.
        downsample: Whether to ask about smaller images, too.
        mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for.
        batch_size: Samples per batch.
        max_new_tokens: Longest answer, in tokens.
        metric: How answers are scored, as `hf_token_compress.data.metrics.score_answer` takes it.
        after_batch: Called with the number of answers after each batch, for progress bars.
        **changes: Other options of `TokenCompressionConfig` that all scorers run with.

    Returns:
        The uncompressed model's result, then one per scorer and ratio. Samples that cannot be
        asked are left out of all, with a warning.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
        TypeError, ValueError: There is no such scorer or option, a ratio is out of range, a setting
            is given twice, a mapper is damaged or is not for this model or for what the samples
            show, or a sample lacks the ground truth that "truth" needs. All of these are raised
            before the first question is asked. Or not one sample can be asked.
    """
    settings = settings_of(
        scorers,
        retention_ratios,
        max_visual_tokens,
        mapper=mapper,
        downsample=downsample,
        **changes,
    )
    evaluator = Evaluator(
        model,
        processor,
        samples,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        metric=metric,
        divergence=False,
    )
    found = evaluator.run(settings, after_batch=after_batch)
    if found.left_out:
        first = found.left_out[0]
        warn(
            f"{len(found.left_out)} of {len(samples)} samples are left out: {first.place} "
            f"because {first.reason}."
        )
    return list(found.results)


def retention_markdown(results: Sequence[RetentionResult]) -> str:
    """The results as a Markdown table: accuracy in percent, with its standard error over all."""
    kinds = named_kinds(results[0])
    lines = [
        "| " + " | ".join(["scorer", "kept", *map(kind_title, kinds), ALL]) + " |",
        "|---|---|" + "---|" * (len(kinds) + 1),
    ]
    for result in results:
        cells = [f"{100 * result.accuracy(kind):.1f}" for kind in kinds]
        overall = f"{100 * result.accuracy():.1f} ± {100 * result.standard_error():.1f}"
        kept = f"{100 * result.kept_share:.0f} %"
        lines.append(f"| {result.setting.name} | {kept} | " + " | ".join([*cells, overall]) + " |")
    return "\n".join(lines)


def named_kinds(result: RetentionResult) -> list[str]:
    """Kinds of questions to show beside the accuracy over all: none if the samples have none."""
    kinds = list(result.asked)
    return [] if kinds == [ALL] else kinds


def kind_title(kind: str) -> str:
    """What tables that also have an accuracy over all call a kind."""
    return "(no kind)" if kind == ALL else kind
