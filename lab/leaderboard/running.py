"""Ask what is missing, subject by subject."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from hf_token_compress.data.sample import Sample
from hf_token_compress.evaluation import Evaluator
from hf_token_compress.mapper import load_mappers
from hf_token_compress.tiny import own_mapper

from ..loading import load_model
from .progress import Progress, TimeUpError
from .rows import ROWS, Row
from .schedule import Task, schedule
from .subjects import SUBJECTS, TESTBED, Pool, Stream, Subject, questions_of

_NEW_TOKENS = 8


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run needs.

    Attributes:
        folder: Where answers go, one file per model and source.
        stream: Which questions.
        subjects: Models and sources.
        rows: Which rows.
        testbed: Folder of the testbed.
        testbed_mapper: Folder of its mapper, if there is one.
        batch_size: Questions of tiny models per batch; of the testbed, a quarter of it.
    """

    folder: Path
    stream: Stream
    subjects: tuple[Subject, ...] = SUBJECTS
    rows: tuple[Row, ...] = ROWS
    testbed: str = TESTBED
    testbed_mapper: str | None = None
    batch_size: int = 64

    def tasks(self) -> list[Task]:
        """All that is to be measured, in order."""
        mapped = [own for own in self.subjects if self.has_mapper(own)]
        return list(schedule(self.subjects, self.rows, mapped))

    def mapper(self, model: str) -> str | None:
        """The mapper of a model."""
        return self.testbed_mapper if model == TESTBED else own_mapper(model)

    def has_mapper(self, subject: Subject) -> bool:
        """Whether the mapper of the model was trained for what the subject shows."""
        name = self.mapper(subject.model)
        return name is not None and subject.modality in load_mappers(name).mappers

    def location(self, model: str) -> str:
        """What loads a model."""
        return self.testbed if model == TESTBED else model

    def batch(self, subject: Subject) -> int:
        """Questions per batch."""
        return max(1, self.batch_size // 4) if subject.model == TESTBED else self.batch_size

    def file(self, subject: Subject) -> Path:
        """The answers of a subject."""
        return answers_file(self.folder, self.stream, subject)


def answers_file(folder: Path, stream: Stream, subject: Subject) -> Path:
    """Where the answers of a subject are."""
    return folder / stream / f"{subject.name.replace(' ', '-')}.jsonl"


def run_all(run: Run, limit: float | None = None) -> Progress:
    """Ask every question that has no answer yet.

    Args:
        run: What to measure.
        limit: Seconds after which to stop.

    Returns:
        How much is done.

    Raises:
        OSError: There is no such folder or mapper.
        ImportError: A package of the testbed is not installed.
        ValueError: The folder holds answers of something else.
    """
    tasks = run.tasks()
    progress = Progress(tasks, limit)
    (run.folder / run.stream).mkdir(parents=True, exist_ok=True)
    load = cache(load_model)
    samples = cache(lambda subject: questions_of(subject, subject.seed(run.stream)))
    try:
        for task in tasks:
            model, processor = load(run.location(task.subject.model), dtype=task.subject.dtype)
            _measure(run, task, model, processor, samples(task.subject), progress)
    except TimeUpError:
        pass
    return progress


def _measure(
    run: Run, task: Task, model: Any, processor: Any, samples: Sequence[Sample], progress: Progress
) -> None:
    subject = task.subject
    evaluator = Evaluator(
        model,
        processor,
        Pool(samples, about(subject, run.stream), task.questions),
        batch_size=run.batch(subject),
        max_new_tokens=_NEW_TOKENS,
        divergence=False,
        answers=run.file(subject),
    )
    mapper = run.mapper(subject.model)
    progress.start()
    evaluator.run(
        [row.setting(ratio, mapper) for row, ratio in task.settings],
        after_batch=partial(progress.answered, task),
        known_answers=partial(progress.known, task),
    )
    progress.show(task)


def about(subject: Subject, stream: Stream) -> dict[str, Any]:
    """What the questions of a subject are, which the header of its file says."""
    return {
        "stream": stream,
        "subject": subject.name,
        "seed": subject.seed(stream),
        "kinds": list(subject.kinds),
        "per_kind": subject.per_kind,
        "frames_per_scene": subject.frames_per_scene,
    }
