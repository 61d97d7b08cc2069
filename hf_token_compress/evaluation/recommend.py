"""The setting that keeps the fewest tokens without losing more than a limit.

Many settings are tried on the same questions, so a plain bound of the best one would be too good.
Each scorer's settings are therefore tested in an order that is fixed beforehand, from the most
tokens down, and its sequence ends with the first that fails; every test may then use the scorer's
whole share of the error probability (Maurer, Hothorn and Lehmacher, 1995; for the risk of a
prediction, Angelopoulos et al., "Learn then Test", arXiv 2110.01052). Scorers share the error
probability equally (Bonferroni). With the stated confidence, none of the accepted settings loses
more than the limit, whichever of them is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

from ..checks import check_number
from ..config import TokenCompressionConfig
from .results import RetentionResult
from .statistics import Clusters, Scores, loss_upper_bound

Verdict = Literal["recommended", "too_few_questions", "too_much_lost"]

LOSS_INTERVAL = "(0, 100)"
CONFIDENCE_INTERVAL = "[0.5, 1)"


@dataclass(frozen=True)
class Measured:
    """A setting, and the scores of both models on the questions that both answered.

    Attributes:
        config: The setting.
        kept_share: Share of the visual tokens that it kept.
        full: Scores of the full model, [N].
        compressed: Scores with the setting, [N].
        clusters: The image of each question, as in `loss_upper_bound`.
    """

    config: TokenCompressionConfig
    kept_share: float
    full: Scores
    compressed: Scores
    clusters: Clusters | None = None

    @classmethod
    def of(cls, full: RetentionResult, result: RetentionResult) -> Measured:
        """The scores of two results of one evaluation: the full model's, and a setting's."""
        return cls(
            result.setting.config,
            result.kept_share,
            full.scores(),
            result.scores(),
            result.clusters,
        )


@dataclass(frozen=True)
class Step:
    """A setting that was tested.

    Attributes:
        scorer: Name of its scorer in the results.
        config: The setting.
        kept_share: Share of the visual tokens that it kept.
        percent_of_full: Mean score in percent of the full model's.
        loss_bound: Percent of the full model's mean score that it loses at most, with the
            recommendation's `level`.
        accepted: Whether the bound is within the limit.
        questions_needed: About how many questions would show that the loss is within the limit, if
            it is what was measured; None if it was accepted, or if more is lost than the limit.
    """

    scorer: str
    config: TokenCompressionConfig
    kept_share: float
    percent_of_full: float
    loss_bound: float
    accepted: bool
    questions_needed: int | None


@dataclass(frozen=True)
class Recommendation:
    """What was found.

    Attributes:
        max_loss: The limit, in percent of the full model's mean score.
        confidence: That no accepted setting loses more.
        level: Confidence of each single bound.
        questions: How many questions the full model was asked.
        steps: The settings that were tested, in order.
        questions_needed: About how many questions it takes to recommend anything, where the
            verdict is "too_few_questions".
    """

    max_loss: float
    confidence: float
    level: float
    questions: int
    steps: tuple[Step, ...] = field(default=())
    questions_needed: int | None = None

    @property
    def chosen(self) -> Step | None:
        """The accepted setting that kept the fewest tokens, of several the one with less loss."""
        accepted = [step for step in self.steps if step.accepted]
        return min(accepted, key=lambda step: (step.kept_share, step.loss_bound), default=None)

    @property
    def verdict(self) -> Verdict:
        """Whether a setting is recommended, or why none is."""
        if self.chosen is not None:
            return "recommended"
        return "too_much_lost" if self.questions_needed is None else "too_few_questions"

    def to_dict(self) -> dict[str, Any]:
        """The recommendation as JSON types."""
        chosen = self.chosen
        return {
            "verdict": self.verdict,
            "max_loss": self.max_loss,
            "confidence": self.confidence,
            "level": self.level,
            "questions": self.questions,
            "questions_needed": self.questions_needed,
            "token_compression": None if chosen is None else chosen.config.to_dict(),
            "steps": [
                {**vars(step), "config": step.config.to_dict(), "chosen": step is chosen}
                for step in self.steps
            ],
        }


def recommend(
    full: Scores,
    sequences: Mapping[str, Iterable[Measured]],
    *,
    max_loss: float,
    confidence: float = 0.95,
    clusters: Clusters | None = None,
    after_step: Callable[[Step], None] | None = None,
) -> Recommendation:
    """Test the settings of each scorer in turn, until the first that fails.

    Nothing is taken from the sequences if the questions are too few whatever the answers.

    Args:
        full: Scores of the full model, [N], each in [0, 1].
        sequences: For each scorer, its settings in the order of the tests, from the most tokens
            down. They can be measured as they are asked for.
        max_loss: Percent of the full model's mean score that may be lost, in (0, 100).
        confidence: That none of the accepted settings loses more, in [0.5, 1).
        clusters: The image of each question; by default every question has its own.
        after_step: Called with each test.

    Raises:
        ValueError: A number is out of range, there is no scorer, or the full model scores 0 on
            every question.
    """
    level = level_of_each(confidence, len(sequences))
    check_number("max_loss", max_loss, LOSS_INTERVAL)
    if loss_upper_bound(full, full, clusters=clusters, confidence=level) > max_loss:
        images = len(full) if clusters is None else len(set(clusters))
        least = least_questions(
            max_loss, level, mean_score=float(full.mean()), per_image=len(full) / images
        )
        return Recommendation(max_loss, confidence, level, len(full), questions_needed=least)
    steps: list[Step] = []
    needed: list[int] = []
    for scorer, settings in sequences.items():
        for number, measured in enumerate(settings):
            step = _tested(scorer, measured, max_loss, level)
            steps.append(step)
            if after_step is not None:
                after_step(step)
            if not step.accepted:
                if number == 0 and step.questions_needed is not None:
                    needed.append(step.questions_needed)
                break
    return Recommendation(
        max_loss, confidence, level, len(full), tuple(steps), min(needed, default=None)
    )


def level_of_each(confidence: float, scorers: int) -> float:
    """Confidence that each scorer's tests need, so that all of them together have `confidence`.

    Raises:
        ValueError: The confidence is out of range, or there is no scorer.
    """
    check_number("confidence", confidence, CONFIDENCE_INTERVAL)
    if scorers == 0:
        raise ValueError("There is no scorer to choose from: name at least one.")
    return 1 - (1 - confidence) / scorers


def least_questions(
    max_loss: float, confidence: float, *, mean_score: float = 1.0, per_image: float = 1.0
) -> int:
    """About how many questions it takes if no answer changes; fewer can show nothing.

    The bound of `loss_upper_bound` for equal scores, solved for the number of questions.

    Args:
        max_loss: Percent of the full model's mean score that may be lost, in (0, 100).
        confidence: Of the bound, in [0.5, 1).
        mean_score: Mean score of the full model.
        per_image: Questions per image.

    Raises:
        ValueError: A number is out of range.
    """
    check_number("max_loss", max_loss, LOSS_INTERVAL)
    check_number("confidence", confidence, CONFIDENCE_INTERVAL)
    z = NormalDist().inv_cdf(confidence)
    lost = (1 + math.sqrt(2)) / 2 * z * z
    return max(1, math.ceil(100 * lost * per_image / (max_loss * mean_score)))


def _tested(scorer: str, measured: Measured, max_loss: float, level: float) -> Step:
    full, compressed, clusters = measured.full, measured.compressed, measured.clusters
    bound = loss_upper_bound(full, compressed, clusters=clusters, confidence=level)
    loss = 100 * (1 - compressed.mean() / full.mean())
    accepted = bound <= max_loss
    needed = None
    if not accepted and loss < max_loss:
        # What the bound adds to the loss falls with the square root of the number.
        needed = math.ceil(len(full) * ((bound - loss) / (max_loss - loss)) ** 2)
    return Step(scorer, measured.config, measured.kept_share, 100 - loss, bound, accepted, needed)
