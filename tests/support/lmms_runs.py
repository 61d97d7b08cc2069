"""Runs of the real lmms-eval on questions in a folder, with the tasks of these tests."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sample_files import write_video

from hf_token_compress.evaluation import Sample

TASKS = Path(__file__).parents[1] / "integrations" / "lmms_eval" / "tasks"


@dataclass(frozen=True)
class Run:
    """What lmms-eval found: answers in the order of the questions, and its figures."""

    answers: list[str]
    accuracy: float
    throughput: dict[str, Any]


def write_questions(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Write the data of the tasks; returns the samples with the paths of their videos."""
    written, lines = [], []
    for number, sample in enumerate(samples):
        path = folder / f"{number}.{'mp4' if sample.frames else 'png'}"
        if sample.frames:
            write_video(path, list(sample.frames))
            sample = Sample("video", (str(path),), sample.question, sample.answer, sample.kind)
        else:
            sample.image.save(path)
        written.append(sample)
        own = {sample.modality: str(path), "question": sample.question, "answer": sample.answer}
        lines.append(json.dumps(own))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return written


@functools.cache
def _task_manager() -> Any:
    """All tasks of lmms-eval are read, which takes seconds."""
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS))


def run(*tasks: str, **options: Any) -> Run:
    """Evaluate the model `hf_token_compress` on the CPU and the working directory's questions.

    Args:
        *tasks: Names of tasks of these tests; the accuracy is that of the first.
        **options: Arguments of lmms-eval's `simple_evaluate`.
    """
    from lmms_eval.evaluator import simple_evaluate

    found = simple_evaluate(
        model="hf_token_compress",
        tasks=list(tasks),
        task_manager=_task_manager(),
        device="cpu",
        **options,
    )
    samples = [sample for task in tasks for sample in found["samples"][task]]
    return Run(
        [sample["filtered_resps"][0] for sample in samples],
        found["results"][tasks[0]]["exact_match,none"],
        found.get("throughput", {}),
    )
