"""Ask every question with every setting, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..data.chat import batches_of_one_shape
from ..data.metrics import MetricOption
from ..data.sample import Sample
from ..data.sources import SampleSource
from .answers import Answers, AnswersFile
from .asking import Batch, Measures
from .digests import weights_digest
from .questions import Questions, none_can_be_asked, unusable
from .results import Evaluation, RetentionResult
from .settings import FULL, EvaluationSetting
from .switching import SwitchedModel

Counted = Callable[[int], None]

_WEIGHTS = 64
"""Numbers of each parameter that tell a model from another one."""


class Evaluator:
    """Asks questions with any settings, each question once with each.

    A sample that cannot be read, or that a setting cannot answer, is left out of all results.

    Args:
        model: An uncompressed model of a supported family. Between calls it is uncompressed.
        processor: Its processor.
        samples: The questions, or samples to make `Questions` of. Where no right answers are known,
            answers are compared with those of the uncompressed model.
        batch_size: Samples per batch; images and videos of different lengths are batched apart.
        max_new_tokens: Longest answer, in tokens.
        metric: How answers are scored, as `hf_token_compress.data.metrics.score_answer` takes it.
        divergence: Whether to measure `SampleResult.kl`; by default where no right answers are
            known.
        log_probability: Whether to measure `SampleResult.log_probability`.
        answers: A file to which answers are appended as soon as they are there. Where it exists,
            its run is continued: with the same questions, model and measures, but with any
            settings, and with more questions of the same file.

    Raises:
        OSError: That file cannot be read or written.
        ValueError: Models of this family cannot be compressed, or no sample can be asked,
            or the file has answers of another run.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        samples: Sequence[Sample] | SampleSource | Questions,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 64,
        metric: MetricOption = "auto",
        divergence: bool | None = None,
        log_probability: bool = False,
        answers: str | Path | None = None,
    ) -> None:
        self._switched, self._processor = SwitchedModel(model), processor
        self._questions = samples if isinstance(samples, Questions) else Questions(samples)
        self._batch_size = batch_size
        labelled = self._questions.labelled
        self._measures = Measures(
            max_new_tokens,
            metric,
            divergence=not labelled if divergence is None else divergence,
            log_probability=log_probability and labelled,
        )
        self._answers = Answers() if answers is None else AnswersFile(answers, self._about())
        self._failed: dict[int, str] = {}

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._questions)

    def run(
        self,
        settings: Sequence[EvaluationSetting],
        *,
        after_batch: Counted | None = None,
        known_answers: Counted | None = None,
    ) -> Evaluation:
        """Ask what has not been answered yet; the uncompressed model is always asked, too.

        Args:
            settings: The settings.
            after_batch: Called with the number of answers after each batch, for progress bars.
            known_answers: Called instead with those of earlier runs.

        Raises:
            MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
            TypeError, ValueError: There is no such scorer or option, a mapper is damaged or is not
                for this model or for what the samples show, or the ground truth that "truth" needs
                is missing. All of these are raised before the first question is asked. Or not one
                sample can be answered with all settings.
        """
        self._questions.check_scorers([setting.scorer for setting in settings])
        self._switched.prepare(settings, self._questions.modalities)
        every = _with_full(settings)
        numbers = self._questions.numbers
        with self._switched.attached():
            for start in range(0, len(numbers), self._batch_size):
                self._ask_all(
                    numbers[start : start + self._batch_size],
                    every,
                    after_batch or _ignore,
                    known_answers or after_batch or _ignore,
                )
        found = self.found(settings)
        if not found.results[0].samples:
            raise ValueError(none_can_be_asked(len(numbers), found.left_out))
        return found

    def found(self, settings: Sequence[EvaluationSetting]) -> Evaluation:
        """The results so far, over the samples that all settings have answered."""
        every = _with_full(settings)
        answers = [self._answers.of(self._key(setting)) for setting in every]
        numbers = self._questions.numbers
        common = [number for number in numbers if all(number in own for own in answers)]
        failed = [self._questions.leave_out(*item) for item in self._failed.items()]
        left_out = sorted([*self._questions.left_out, *failed], key=lambda item: item.number)
        return Evaluation(
            tuple(
                RetentionResult(setting, tuple(own[number] for number in common))
                for setting, own in zip(every, answers, strict=True)
            ),
            tuple(left_out),
            self._questions.labelled,
        )

    def _about(self) -> dict[str, Any]:
        """What makes answers comparable, as JSON types."""
        model = self._switched.model
        return {
            "version": __version__,
            "model": weights_digest([model], most=_WEIGHTS),
            "dtype": str(model.dtype).removeprefix("torch."),
            "data": self._questions.describe(),
            **self._measures.to_dict(),
        }

    def _ask_all(
        self,
        numbers: Sequence[int],
        settings: Sequence[EvaluationSetting],
        after: Counted,
        known: Counted,
    ) -> None:
        """Ask questions with every setting that they were not asked with before."""
        answered = [self._answers.of(self._key(setting)) for setting in settings]
        samples = self._read([n for n in numbers if any(n not in own for own in answered)])
        shapes = batches_of_one_shape(list(samples.values()))
        groups = [[list(samples)[place] for place in places] for places in shapes]
        batches: dict[tuple[int, ...], Batch] = {}
        for setting, own in zip(settings, answered, strict=True):
            before = sum(number in own for number in numbers)
            for group in groups:
                asked = tuple(n for n in group if n not in own and n not in self._failed)
                if asked not in batches:
                    batches[asked] = self._batch({number: samples[number] for number in asked})
                self._ask(batches[asked], setting)
            known(before)
            after(len(numbers) - before)

    def _read(self, numbers: Sequence[int]) -> dict[int, Sample]:
        found: dict[int, Sample] = {}
        for number in numbers:
            try:
                found[number] = self._questions.read(number, self._processor)
            except Exception as error:  # a decoder may raise anything
                self._failed[number] = unusable(error, "read")
        return found

    def _ask(self, batch: Batch, setting: EvaluationSetting) -> None:
        """Ask a batch; one by one where that fails, as one bad sample costs only itself."""
        if not batch.samples:
            return
        try:
            results = self._measures.of(batch, setting, self._answers.of(self._key(FULL)))
        except (torch.OutOfMemoryError, ValueError) as error:
            if len(batch.samples) == 1:
                (number,) = batch.samples
                self._failed[number] = unusable(error, "answered")
                return
            for number, sample in batch.samples.items():
                self._ask(self._batch({number: sample}), setting)
            return
        self._answers.add(self._key(setting), results)

    def _batch(self, samples: Mapping[int, Sample]) -> Batch:
        return Batch(samples, self._processor, self._switched)

    def _key(self, setting: EvaluationSetting) -> str:
        return setting.key + self._switched.digest(setting)


def _with_full(settings: Sequence[EvaluationSetting]) -> list[EvaluationSetting]:
    return [FULL, *(setting for setting in settings if setting != FULL)]


def _ignore(count: int) -> None:
    """Count nothing."""
