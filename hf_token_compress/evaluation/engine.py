"""Ask every question with every setting, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from ..data.answers import Match, bare_answer
from ..data.chat import batches_of_one_shape
from ..data.media import with_frames
from ..data.sample import Sample
from ..data.sources import SampleSource
from ..hub import first_line
from ..prompt import Modality
from .answers import Answers
from .asking import Batch, Measures
from .results import Evaluation, LeftOut, RetentionResult
from .settings import FULL, TRUTH, EvaluationSetting
from .switching import SwitchedModel
from .truth import has_ground_truth


class Evaluator:
    """Asks questions with any settings, each question once with each.

    Samples are read when their batch is asked, and images are not kept. One that cannot be read,
    or that a setting cannot answer, is left out of all results.

    Args:
        model: An uncompressed model of a supported family. Between calls it is uncompressed.
        processor: Its processor.
        samples: The questions. If none has an answer, answers are compared with those of the
            uncompressed model; if some have, the others are left out.
        numbers: Which samples to ask; by default all.
        num_frames: Frames to take of videos that are files, as `read_video` takes it.
        batch_size: Samples per batch; images and videos of different lengths are batched apart.
        max_new_tokens: Longest answer, in tokens.
        match: Which answers are right, as `hf_token_compress.data.answers.is_right` takes it.
        divergence: Whether to measure `SampleResult.kl`; by default where no answer is known.
        log_probability: Whether to measure `SampleResult.log_probability`.
        answers: Where answers are kept; an `AnswersFile` continues a stopped run.

    Raises:
        ValueError: Models of this family cannot be compressed, or no sample can be asked.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        samples: Sequence[Sample] | SampleSource,
        *,
        numbers: Sequence[int] | None = None,
        num_frames: int | None = None,
        batch_size: int = 16,
        max_new_tokens: int = 64,
        match: Match = "exact",
        divergence: bool | None = None,
        log_probability: bool = False,
        answers: Answers | None = None,
    ) -> None:
        self._switched, self._processor = SwitchedModel(model), processor
        self._samples, self._num_frames = samples, num_frames
        self._batch_size = batch_size
        self._answers = Answers() if answers is None else answers
        self._left_out: dict[int, str] = {}
        self._modalities: set[Modality] = set()
        self._without_ground_truth: int | None = None
        self._numbers = self._askable(range(len(samples)) if numbers is None else numbers)
        self._measures = Measures(
            max_new_tokens,
            match,
            divergence=not self.labelled if divergence is None else divergence,
            log_probability=log_probability and self.labelled,
        )

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._numbers)

    @property
    def has_ground_truth(self) -> bool:
        """Whether the scorer "truth" can be asked."""
        return self._without_ground_truth is None

    def run(
        self,
        settings: Sequence[EvaluationSetting],
        *,
        after_batch: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Ask what has not been answered yet; the uncompressed model is always asked, too.

        Args:
            settings: The settings.
            after_batch: Called with the number of answers after each batch, for progress bars.

        Raises:
            MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
            TypeError, ValueError: There is no such scorer or option, a mapper is damaged or is not
                for this model or for what the samples show, or the ground truth that "truth" needs
                is missing. All of these are raised before the first question is asked. Or not one
                sample can be answered with all settings.
        """
        settings = [setting for setting in settings if setting != FULL]
        if not self.has_ground_truth and any(own.scorer == TRUTH for own in settings):
            raise ValueError(
                f"The scorer {TRUTH} needs the relevant boxes of every sample, on its one image or "
                f"frames, but sample {self._without_ground_truth} has none: leave that scorer out."
            )
        self._switched.prepare(settings, self._modalities)
        with self._switched.attached():
            for start in range(0, len(self._numbers), self._batch_size):
                numbers = self._numbers[start : start + self._batch_size]
                self._ask_all(numbers, [FULL, *settings], after_batch or (lambda count: None))
        found = self.found(settings)
        if not found.results[0].samples:
            raise ValueError(self._no_sample())
        return found

    def found(self, settings: Sequence[EvaluationSetting]) -> Evaluation:
        """The results so far, over the samples that all settings have answered."""
        every = [FULL, *(setting for setting in settings if setting != FULL)]
        answers = [self._answers.of(setting) for setting in every]
        common = [number for number in self._numbers if all(number in own for own in answers)]
        return Evaluation(
            tuple(
                RetentionResult(setting, tuple(own[number] for number in common))
                for setting, own in zip(every, answers, strict=True)
            ),
            tuple(LeftOut(*item) for item in sorted(self._left_out.items())),
            self.labelled,
        )

    def _askable(self, numbers: Iterable[int]) -> list[int]:
        """Look at the samples without decoding their images, where the source can do that."""
        look = getattr(self._samples, "peek", self._samples.__getitem__)
        answered, silent = [], []
        for number in numbers:
            try:
                sample: Sample = look(number)
            except Exception as error:  # a decoder may raise anything
                self._leave_out(number, error)
                continue
            if sample.answer is None:
                silent.append(number)
            elif not bare_answer(sample.answer):
                self._left_out[number] = "its answer is empty"
                continue
            else:
                answered.append(number)
            self._modalities.add(sample.modality)
            if self._without_ground_truth is None and not has_ground_truth(sample):
                self._without_ground_truth = number
        self.labelled = bool(answered)
        if answered:
            self._left_out.update(dict.fromkeys(silent, "it has no answer"))
        if not (answered or silent):
            raise ValueError(self._no_sample())
        return answered or silent

    def _leave_out(self, number: int, error: Exception, what: str = "read") -> None:
        self._left_out[number] = f"it cannot be {what}: {first_line(error).rstrip('.')}"

    def _no_sample(self) -> str:
        if not self._left_out:
            return "There are no samples to ask: the data is empty."
        number, reason = min(self._left_out.items())
        return (
            f"Not one of {len(self._samples)} samples can be asked: sample {number} is left out "
            f"because {reason}."
        )

    def _ask_all(
        self,
        numbers: Sequence[int],
        settings: Sequence[EvaluationSetting],
        after: Callable[[int], None],
    ) -> None:
        """Ask a batch what it was not asked before."""
        samples: dict[int, Sample] = {}
        for number in numbers:
            if all(number in self._answers.of(setting) for setting in settings):
                continue
            try:
                samples[number] = with_frames(
                    self._samples[number], self._processor, self._num_frames
                )
            except Exception as error:  # a decoder may raise anything
                self._leave_out(number, error)
        read = list(samples)
        shapes = batches_of_one_shape(list(samples.values()))
        groups = [[read[place] for place in places] for places in shapes]
        batches: dict[tuple[int, ...], Batch] = {}
        for setting in settings:
            known = self._answers.of(setting)
            for group in groups:
                own = tuple(n for n in group if n not in known and n not in self._left_out)
                if own not in batches:
                    batches[own] = self._batch({number: samples[number] for number in own})
                self._ask(batches[own], setting)
            after(len(numbers))

    def _ask(self, batch: Batch, setting: EvaluationSetting) -> None:
        """Ask a batch; one by one where that fails, as one bad sample costs only itself."""
        if not batch.samples:
            return
        try:
            results = self._measures.of(batch, setting, self._answers.of(FULL))
        except (torch.OutOfMemoryError, ValueError) as error:
            if len(batch.samples) == 1:
                (number,) = batch.samples
                self._leave_out(number, error, "answered")
                return
            for number, sample in batch.samples.items():
                self._ask(self._batch({number: sample}), setting)
            return
        self._answers.add(setting, results)

    def _batch(self, samples: Mapping[int, Sample]) -> Batch:
        return Batch(samples, self._processor, self._switched)
