"""The user's own questions: which of them can be asked, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from ..data.chat import encode_samples
from ..data.choices import bare_answer
from ..data.media import with_frames
from ..data.sample import Sample
from ..data.sources import SampleSource
from ..hub import first_line
from .truth import has_ground_truth

ALL = "all"
"""Kind of the samples that have none."""


@dataclass(frozen=True)
class LeftOut:
    """A sample that cannot be asked.

    Attributes:
        number: Number of the sample, from 0.
        reason: Why.
    """

    number: int
    reason: str


class Questions(Sequence[Sample]):
    """The samples of a source that can be asked; each is read again whenever it is needed.

    Args:
        source: The samples.
        processor: The model's processor.
        kinds: Kinds of questions to ask; by default all. Samples without a kind have the kind
            "all".
        num_frames: Frames to take of videos that are files or folders, as `read_video` takes it.
        after_sample: Called with 1 after each sample, for progress bars.

    Attributes:
        left_out: The samples that cannot be asked: without an answer, or unreadable.
        have_ground_truth: Whether all questions say which part of the visual their answer depends
            on, as the scorer "truth" needs.

    Raises:
        ValueError: No sample has one of the kinds, or none can be asked.
    """

    def __init__(
        self,
        source: SampleSource,
        processor: Any,
        *,
        kinds: Sequence[str] = (),
        num_frames: int | None = None,
        after_sample: Callable[[int], None] | None = None,
    ) -> None:
        self._source, self._processor, self._num_frames = source, processor, num_frames
        self._numbers: list[int] = []
        self.left_out: list[LeftOut] = []
        self.have_ground_truth = True
        found: dict[str, None] = {}
        for number in range(len(source)):
            try:
                sample = self._read(number)
                kind = sample.kind or ALL
                found[kind] = None
                if not kinds or kind in kinds:
                    self._add(number, sample)
            except Exception as error:  # a decoder may raise anything
                reason = first_line(error).rstrip(".")
                self.left_out.append(LeftOut(number, f"it cannot be read: {reason}"))
            if after_sample is not None:
                after_sample(1)
        if unknown := [kind for kind in kinds if kind not in found]:
            raise ValueError(
                f"There is no question of the kind {unknown[0]!r} in the data: it has "
                f"{', '.join(found) or 'none that can be read'}."
            )
        if not self._numbers:
            first = self.left_out[0]
            raise ValueError(
                f"Not one of {len(source)} samples can be asked: sample {first.number} is left "
                f"out because {first.reason}."
            )

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._read(number) for number in self._numbers[index]]
        return self._read(self._numbers[index])

    def _read(self, number: int) -> Sample:
        return with_frames(self._source[number], self._processor, self._num_frames)

    def _add(self, number: int, sample: Sample) -> None:
        if sample.answer is None:
            self.left_out.append(LeftOut(number, "it has no answer"))
            return
        if not bare_answer(sample.answer):
            self.left_out.append(LeftOut(number, "its answer is empty"))
            return
        encode_samples(self._processor, [sample])  # fails for images that the processor refuses
        self._numbers.append(number)
        self.have_ground_truth = self.have_ground_truth and has_ground_truth(sample)
