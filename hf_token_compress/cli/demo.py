"""`hf-token-compress demo`: questions about held-out images, with fewer and fewer tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..data.composed import composed_sample
from ..data.metrics import is_right
from ..data.sample import Sample
from ..data.scenes import KINDS, make_scene, scene_questions
from .answering import answer, prepare_question
from .checkpoint import Checkpoint, ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, results, working
from .errors import one_sentence_errors, stoppable, wrong_arguments
from .options import takes
from .outputs import make_folder

if TYPE_CHECKING:
    from typing import TypeAlias

    Trial: TypeAlias = tuple[Sample, list["Attempt"]]

_SHARES = (1.0, 0.5, 0.25, 0.1)
_REPEATS = 3
_BOARDS = ((4, 4), (4, 5), (5, 4), (4, 6), (5, 5), (6, 6))
_MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class Attempt:
    """One answer with all or some of the visual tokens, and the image that shows those."""

    share: float
    visual_tokens: int
    prompt_tokens: int
    text: str
    right: bool
    milliseconds: float
    image: Image.Image


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(
    TokenCompressionConfig,
    "changes",
    panel="Compression",
    leave_out=("retention_ratio", "top_p"),
    built=False,
)
def demo(
    model_options: ModelOptions,
    changes: dict[str, Any],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", metavar="FOLDER")
    ] = Path("token_compression_demo"),
    questions: Annotated[int, typer.Option(min=1, help="How many questions to ask.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first image.")] = 0,
) -> None:
    """See a model answer with all, 50 %, 25 % and 10 % of its visual tokens.

    Asks questions of several kinds about images that the model was not trained on, and writes
    for each an image of what was kept. Where a mapper comes with the model, it scores the tokens.

    **Examples**

    ```
    hf-token-compress demo
    hf-token-compress demo --scorer attention --seed 100 --output by_attention
    ```
    """
    source = find_checkpoint(model_options)
    with wrong_arguments():
        compression = source.merged_compression(changes, ("image",))
    samples = list(itertools.islice(_held_out_questions(seed), questions))
    trials: list[Trial] = []
    written: list[Path] = []
    with stoppable(lambda: _left(written, questions)):
        make_folder(output)
        checkpoint = load_checkpoint(source, compression)
        _warm_up(checkpoint, samples[0])
        with counting("Asking", len(samples)) as done:
            for number, sample in enumerate(samples, start=1):
                trial = sample, _attempts(checkpoint, sample)
                path = output / f"{number:02d}-{sample.kind}.png"
                _contact_sheet(trial, compression.scorer_name).save(path)
                trials.append(trial)
                written.append(path)
                done(1)
    console = results()
    console.print(_table(trials, compression.scorer_name))
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)
    console.print(Text(_what_was_measured(checkpoint, len(trials))))


def _left(written: Sequence[Path], questions: int) -> str:
    """What a stopped run leaves."""
    if not written:
        return "No question was answered yet: nothing is kept."
    return (
        f"The images of {len(written)} of {questions} questions are in {written[0].parent}: run "
        "the same command again for the table."
    )


def _held_out_questions(seed: int) -> Iterator[Sample]:
    """Questions of all kinds in turn, each about an image of its own from the split "test"."""
    for number in itertools.count():
        rows, columns = _BOARDS[number % len(_BOARDS)]
        scene = make_scene(seed + number, rows, columns, split="test")
        kind = KINDS[number % len(KINDS)]
        for question in scene_questions(scene, kinds=[kind], seed=seed + number):
            yield composed_sample(scene, question)


def _warm_up(checkpoint: Checkpoint, sample: Sample) -> None:
    """Do once what only first calls cost, so that it is not timed."""
    with working("Warming up"):
        inputs = prepare_question(checkpoint, [sample.image], sample.question)
        for share in _SHARES[:2]:
            answer(checkpoint, inputs, max_new_tokens=_MAX_NEW_TOKENS, retention_ratio=share)


def _attempts(checkpoint: Checkpoint, sample: Sample) -> list[Attempt]:
    """The answers of the stock model, and at every smaller share of the visual tokens."""
    from ..viz import overlay

    inputs = prepare_question(checkpoint, [sample.image], sample.question)
    attempts = []
    # The stock model is last: the report of the call before it has its counts.
    for share in reversed(_SHARES):
        answers = [
            answer(checkpoint, inputs, max_new_tokens=_MAX_NEW_TOKENS, retention_ratio=share)
            for _ in range(_REPEATS)
        ]
        text, kept = answers[0].text, answers[0].report.samples[0]
        whole = share == 1.0
        attempts.append(
            Attempt(
                share,
                visual_tokens=kept.visual_tokens_before if whole else kept.visual_tokens_after,
                prompt_tokens=kept.prompt_tokens_before if whole else kept.prompt_tokens_after,
                text=text,
                right=is_right(text, sample),
                milliseconds=statistics.median(found.milliseconds for found in answers),
                image=sample.image if whole else overlay(sample.image, kept),
            )
        )
    return attempts[::-1]


def _table(trials: Sequence[Trial], scorer_name: str) -> Table:
    title = Text(f"Answers with all and some visual tokens; scorer {scorer_name}")
    table = Table(title=title, title_justify="left")
    table.add_column("Question", ratio=1)
    for heading in ("Kept", "Visual\ntokens", "Prompt\ntokens"):
        table.add_column(heading, justify="right")
    table.add_column("Answer")
    table.add_column("")
    table.add_column("ms", justify="right")
    no_labels = [Text()] * len(_SHARES)
    for sample, attempts in trials:
        labels = [Text(sample.question, "bold"), Text(f"Correct answer: {sample.answer}")]
        for label, attempt in zip([*labels, *no_labels], attempts, strict=False):
            table.add_row(
                label,
                _kept(attempt),
                str(attempt.visual_tokens),
                str(attempt.prompt_tokens),
                Text(attempt.text or "(nothing)"),
                Text("right", "green") if attempt.right else Text("wrong", "red"),
                f"{attempt.milliseconds:.0f}",
            )
        table.add_section()
    by_share = zip(*(attempts for _, attempts in trials), strict=True)
    labels = [Text("All questions, mean", "bold"), *no_labels]
    for label, same_share in zip(labels, by_share, strict=False):
        table.add_row(
            label,
            _kept(same_share[0]),
            f"{statistics.mean(attempt.visual_tokens for attempt in same_share):.1f}",
            f"{statistics.mean(attempt.prompt_tokens for attempt in same_share):.1f}",
            f"{sum(attempt.right for attempt in same_share)} of {len(same_share)}",
            "right",
            f"{statistics.mean(attempt.milliseconds for attempt in same_share):.0f}",
        )
    return table


def _kept(attempt: Attempt) -> str:
    return "all" if attempt.share == 1.0 else f"{attempt.share:.0%}"


def _contact_sheet(trial: Trial, scorer_name: str) -> Image.Image:
    """What was kept and answered at every share, side by side."""
    from ..viz import contact_sheet

    sample, attempts = trial
    captions = []
    for attempt in attempts:
        kept = "All" if attempt.share == 1.0 else f"{attempt.share:.0%}:"
        verdict = "right" if attempt.right else "wrong"
        said = attempt.text or "(nothing)"
        captions.append(f"{kept} {attempt.visual_tokens} visual tokens\n{said} ({verdict})")
    return contact_sheet(
        [attempt.image for attempt in attempts],
        captions,
        title=f"{sample.question}\nCorrect answer: {sample.answer}. Scorer: {scorer_name}.",
    )


def _what_was_measured(checkpoint: Checkpoint, questions: int) -> str:
    import torch

    model = checkpoint.model
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    threads = f" (threads: {torch.get_num_threads()})" if model.device.type == "cpu" else ""
    dtype = str(model.dtype).removeprefix("torch.")
    plural = "" if questions == 1 else "s"
    return (
        f"Measured here and now: {questions} question{plural} to {checkpoint.name} "
        f"({parameters:.1f} million parameters, {dtype}) on {model.device.type}{threads}. Times "
        f"are the median of {_REPEATS} whole calls (vision, scoring, rewriting and generation) "
        "after a warm-up. So few questions show how it works, not how well, and the times of a "
        "model this small say little about a large one."
    )
