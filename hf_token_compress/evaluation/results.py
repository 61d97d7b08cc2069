"""What an evaluation found: for every setting and sample, the answer and how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .settings import EvaluationSetting


@dataclass(frozen=True)
class LeftOut:
    """A sample that cannot be asked or answered.

    Attributes:
        number: Number of the sample in the data, from 0.
        reason: Why.
        place: Where it stands, in words, such as "line 3 of 'questions.jsonl'".
    """

    number: int
    reason: str
    place: str


@dataclass(frozen=True)
class SampleResult:
    """The answer to one question with one setting.

    Attributes:
        number: Number of the sample in the data, from 0.
        kind: Kind of the question; "all" if it has none.
        visual: Digest of its images or video, equal for questions about the same.
        answer: The model's answer.
        score: How good it is, in [0, 1]. Where no right answers are known, whether the
            uncompressed model gives the same answer.
        agrees: Whether the uncompressed model gives the same answer.
        visual_tokens_before: Visual tokens of the prompt as it is.
        visual_tokens_after: Visual tokens that the language model saw.
        kl: KL divergence of the setting's next-token distribution from the uncompressed model's,
            in nats: the mean over the first tokens of the uncompressed model's own answer. None if
            it was not measured.
        log_probability: Of the right answer (of its letter, if that is asked for), in nats, the sum
            over its tokens. None if it was not measured.
        first_tokens: Ids of the answer's first tokens.
    """

    number: int
    kind: str
    visual: str
    answer: str
    score: float
    agrees: bool
    visual_tokens_before: int
    visual_tokens_after: int
    kl: float | None = None
    log_probability: float | None = None
    first_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class RetentionResult:
    """The answers with one setting.

    Attributes:
        setting: The setting.
        samples: One result for each sample.
    """

    setting: EvaluationSetting
    samples: tuple[SampleResult, ...]

    @property
    def scorer(self) -> str | None:
        """Name of the scorer, or "down-sampled"; None for the uncompressed model."""
        return "down-sampled" if self.setting.downsampled else self.setting.scorer

    @property
    def retention_ratio(self) -> float:
        """Share of the visual tokens that was asked for; 1.0 for the uncompressed model."""
        return self.setting.config.retention_ratio

    @property
    def kept_share(self) -> float:
        """Share of the visual tokens of all samples that the language model saw."""
        before = sum(sample.visual_tokens_before for sample in self.samples)
        after = sum(sample.visual_tokens_after for sample in self.samples)
        return after / before if before else 1.0

    @property
    def visual_tokens(self) -> float:
        """Visual tokens of a sample that the language model saw, on average."""
        return sum(sample.visual_tokens_after for sample in self.samples) / len(self.samples)

    @property
    def correct(self) -> dict[str, float]:
        """For each kind of question, the sum of the scores: how many answers were right."""
        found = dict.fromkeys(self.asked, 0.0)
        for sample in self.samples:
            found[sample.kind] += sample.score
        return found

    @property
    def asked(self) -> dict[str, int]:
        """For each kind of question, how many were asked."""
        found: dict[str, int] = {}
        for sample in self.samples:
            found[sample.kind] = found.get(sample.kind, 0) + 1
        return found

    def scores(self, kind: str | None = None) -> np.ndarray:
        """The scores of one kind or of all, float64 [N].

        Raises:
            KeyError: There is no question of that kind.
        """
        own = [item.score for item in self.samples if kind is None or item.kind == kind]
        if not own:
            raise KeyError(kind)
        return np.array(own, dtype=np.float64)

    @property
    def clusters(self) -> tuple[str, ...]:
        """For each sample a digest of what it is about: questions about one image share it."""
        return tuple(sample.visual for sample in self.samples)

    def accuracy(self, kind: str | None = None) -> float:
        """Mean score, the share of right answers, of one kind or of all."""
        return float(self.scores(kind).mean())

    def standard_error(self, kind: str | None = None) -> float:
        """Standard error of `accuracy`: binomial where answers are right or wrong."""
        scores = self.scores(kind)
        return float(scores.std()) / math.sqrt(len(scores))


@dataclass(frozen=True)
class Evaluation:
    """The results of all settings, over the samples that all of them answered.

    Attributes:
        results: First the uncompressed model's, then those of the settings in order. All have the
            same samples in the same order.
        left_out: The samples that no result counts, and why.
        labelled: Whether scores compare with right answers. Otherwise they compare with the
            uncompressed model's answers.
    """

    results: tuple[RetentionResult, ...]
    left_out: tuple[LeftOut, ...] = ()
    labelled: bool = True
