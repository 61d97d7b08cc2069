"""The questions that `evaluate` and `recommend` ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .console import name_samples
from .data_options import DataOptions
from .errors import wrong_arguments
from .scene_options import SceneOptions

if TYPE_CHECKING:
    from pathlib import Path

    from ..evaluation import Evaluator, LeftOut, Questions
    from .checkpoint import Checkpoint
    from .evaluate_options import EvaluateOptions


def read_questions(
    data: DataOptions, composed: SceneOptions, kinds: tuple[str, ...], metric: Any, frames: int
) -> Questions:
    """The user's own questions, or those about composed images.

    Raises:
        CommandError: Samples cannot be used, the metric does not fit them, or there is no question
            of a kind.
    """
    from ..evaluation import Questions

    if not data.given:
        with wrong_arguments():
            return Questions(composed.samples(kinds))
    source = data.source()
    data.check(source, metric)
    with wrong_arguments():
        return Questions(source, kinds=kinds, num_frames=frames)


def make_evaluator(
    checkpoint: Checkpoint,
    questions: Questions,
    options: EvaluateOptions,
    metric: Any,
    answers: Path | None,
    *,
    divergence: bool | None = False,
    log_probability: bool = False,
) -> Evaluator:
    """What asks them of a model.

    Args:
        checkpoint: The model.
        questions: The questions.
        options: How they are asked.
        metric: How answers are scored.
        answers: File that keeps the answers.
        divergence: As `Evaluator` takes it.
        log_probability: As `Evaluator` takes it.
    """
    from ..compression import uncompress
    from ..evaluation import Evaluator

    return Evaluator(
        uncompress(checkpoint.model),
        checkpoint.processor,
        questions,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        metric=metric,
        divergence=divergence,
        log_probability=log_probability,
        answers=answers,
    )


def name_left_out(left_out: Sequence[LeftOut]) -> None:
    """Count and name on stderr the questions that no figure counts."""
    if not left_out:
        return
    name_samples(f"Left out ({len(left_out)})", [(item.place, item.reason) for item in left_out])
