"""The questions of some data: which of them can be asked, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.choices import bare_answer
from ..data.media import with_frames
from ..data.sample import Sample
from ..data.sources import SampleList, SampleSource
from ..hub import first_line
from ..prompt import Modality
from .digests import texts_digest, visuals_digest
from .results import LeftOut
from .settings import TRUTH
from .truth import has_ground_truth

ALL = "all"
"""Kind of the samples that have none."""

_LENGTHS = ("samples", "limit")


class Questions:
    """The samples that can be asked, as far as that is known before their images are decoded.

    Images are read when they are needed, and not kept.

    Args:
        samples: The samples. If some have an answer, those without one are left out.
        kinds: Kinds of questions to ask; by default all. Samples without a kind have the kind
            "all".
        num_frames: Frames to take of videos that are files or folders, as `read_video` takes it.

    Attributes:
        numbers: Numbers of the samples to ask, in order.
        left_out: The others of these kinds.
        labelled: Whether their right answers are known.
        modalities: What they are about.
        without_ground_truth: Number of the first question that does not say which part of the
            visual its answer depends on, as the scorer "truth" needs; None if all do.

    Raises:
        ValueError: No sample has one of the kinds, or none can be asked.
    """

    def __init__(
        self,
        samples: Sequence[Sample] | SampleSource,
        *,
        kinds: Sequence[str] = (),
        num_frames: int | None = None,
    ) -> None:
        self._samples, self._num_frames = samples, num_frames
        unreadable: dict[int, str] = {}
        answers: dict[int, tuple[str, ...]] = {}
        modalities: dict[int, Modality] = {}
        vague: set[int] = set()  # without ground truth
        found: dict[str, None] = {}
        look = getattr(samples, "peek", samples.__getitem__)
        for number in range(len(samples)):
            try:
                sample: Sample = look(number)
            except Exception as error:  # a decoder may raise anything
                unreadable[number] = unusable(error, "read")
                continue
            kind = sample.kind or ALL
            found[kind] = None
            if kinds and kind not in kinds:
                continue
            answers[number] = sample.answers
            modalities[number] = sample.modality
            if not has_ground_truth(sample):
                vague.add(number)
        if unknown := [kind for kind in kinds if kind not in found]:
            named = (f"{ALL} (those without a kind)" if kind == ALL else kind for kind in found)
            raise ValueError(
                f"There is no question of the kind {unknown[0]!r} in the data: it has "
                f"{', '.join(named) or 'none that can be read'}."
            )
        self.labelled = any(answers.values())
        if self.labelled:
            unreadable |= {
                number: "its answer is empty" if own else "it has no answer"
                for number, own in answers.items()
                if not any(map(bare_answer, own))
            }
        self.numbers = tuple(number for number in answers if number not in unreadable)
        self.modalities = {modalities[number] for number in self.numbers}
        self.without_ground_truth = next((n for n in self.numbers if n in vague), None)
        self.left_out = tuple(self.leave_out(*item) for item in sorted(unreadable.items()))
        if not self.numbers:
            raise ValueError(none_can_be_asked(len(samples), self.left_out))

    def __len__(self) -> int:
        return len(self.numbers)

    def leave_out(self, number: int, reason: str) -> LeftOut:
        """A sample that cannot be asked or answered, and where it stands."""
        return LeftOut(number, reason, self.place(number))

    def place(self, number: int) -> str:
        """Where a sample stands, as `SampleSource.place` says it."""
        samples = self._samples
        return samples.place(number) if isinstance(samples, SampleSource) else f"sample {number}"

    def read(self, number: int, processor: Any) -> Sample:
        """Read a sample with its images, or with the frames of its video that the model sees."""
        return with_frames(self._samples[number], processor, self._num_frames)

    def describe(self) -> dict[str, Any]:
        """What the samples are, as JSON types, however many there are of a file."""
        samples = self._samples
        if isinstance(samples, SampleSource) and not isinstance(samples, SampleList):
            found = samples.describe()
        else:
            texts = (
                (own.prompt, own.answers, own.choices, visuals_digest(own.visuals))
                for own in (samples[number] for number in range(len(samples)))
            )
            found = {"digest": texts_digest(texts)}
        if "video" in self.modalities:
            found["frames"] = self._num_frames
        return {name: value for name, value in found.items() if name not in _LENGTHS}

    def check_scorers(self, scorers: Sequence[str | None]) -> None:
        """Raise `ValueError` if the scorer "truth" is among them without its ground truth."""
        if TRUTH in scorers and self.without_ground_truth is not None:
            place = self.place(self.without_ground_truth)
            raise ValueError(
                f"The scorer {TRUTH} needs relevant_boxes in every sample, on its one image or its "
                f"frames, but {place} has none: leave that scorer out."
            )


def unusable(error: Exception, done: str) -> str:
    """Why a sample cannot be read or answered."""
    return f"it cannot be {done}: {first_line(error).rstrip('.')}"


def none_can_be_asked(samples: int, left_out: Sequence[LeftOut]) -> str:
    """What to say where no sample is left."""
    if not left_out:
        return "There is nothing to ask: the data has no samples."
    first = left_out[0]
    return (
        f"Not one of {samples} samples can be asked: {first.place} is left out because "
        f"{first.reason}."
    )
