"""`hf-token-compress demo`: questions about held-out images, with fewer and fewer tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..asking import Answer, answer, prepare_question
from ..config import TokenCompressionConfig
from ..data.composed import composed_sample
from ..data.metrics import is_right
from ..data.sample import Sample
from ..data.scenes import KINDS, make_scene, scene_questions
from .checkpoint import Checkpoint, ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, results, working
from .demo_outputs import (
    Attempt,
    contact_sheet,
    counts_table,
    next_command,
    times_text,
    what_was_measured,
)
from .errors import one_sentence_errors, stoppable, wrong_arguments
from .options import takes
from .outputs import make_folder

if TYPE_CHECKING:
    from ..compression.report import CompressionReport
    from .demo_outputs import Trial

_SHARES = (1.0, 0.5, 0.25, 0.1)
_REPEATS = 3
_BOARDS = ((4, 4), (4, 5), (5, 4), (4, 6), (5, 5), (6, 6))
_MAX_NEW_TOKENS = 16
_IMAGES = "images"


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

    Asks questions of several kinds about images that the model was not trained on. Writes for each
    a sheet of what was kept and, to the folder `images`, the plain image, and prints a command to
    ask about one yourself. Where a mapper comes with the model, it scores the tokens.

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
        make_folder(output / _IMAGES)
        checkpoint = load_checkpoint(source, compression)
        _warm_up(checkpoint, samples[0])
        with counting("Asking", len(samples)) as done:
            for number, sample in enumerate(samples, start=1):
                trial = sample, _attempts(checkpoint, sample)
                name = f"{number:02d}-{sample.kind}.png"
                sample.image.save(output / _IMAGES / name)
                contact_sheet(trial, compression.scorer_name).save(output / name)
                trials.append(trial)
                written.append(output / name)
                done(1)
    console = results()
    console.print(counts_table(trials, compression.scorer_name))
    console.print(Text("\n".join(map(str, written))), soft_wrap=True)
    measured = what_was_measured(checkpoint, len(trials), _REPEATS)
    console.print(Text(f"\n{times_text(trials)} {measured}"))
    sample, path = _to_ask_again(trials, written)
    image, overlay = output / _IMAGES / path.name, output / "asked.png"
    console.print(Text("\nAsk yourself, about this or another image:", "bold"))
    command = next_command(model_options, changes, image, sample.question, _SHARES[-1], overlay)
    console.print(Text(command), soft_wrap=True)


def _to_ask_again(trials: Sequence[Trial], written: Sequence[Path]) -> tuple[Sample, Path]:
    """The last question that was answered right with the fewest tokens, or else the last."""
    pairs = list(zip(trials, written, strict=True))
    (sample, _), path = next((pair for pair in pairs[::-1] if pair[0][1][-1].right), pairs[-1])
    return sample, path


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
            _answer(checkpoint, inputs, share)


def _answer(checkpoint: Checkpoint, inputs: Mapping[str, Any], share: float) -> Answer:
    return answer(
        checkpoint,
        inputs,
        max_new_tokens=_MAX_NEW_TOKENS,
        token_compression=False if share == 1.0 else share,
    )


def _attempts(checkpoint: Checkpoint, sample: Sample) -> list[Attempt]:
    """The answers of the stock model, and at every smaller share of the visual tokens."""
    from ..viz import overlay

    inputs = prepare_question(checkpoint, [sample.image], sample.question)
    attempts = []
    # The stock model is last: the report of the share before it has its counts.
    report: CompressionReport | None = None
    for share in reversed(_SHARES):
        answers = [_answer(checkpoint, inputs, share) for _ in range(_REPEATS)]
        text, report = answers[0].text, answers[0].report or report
        assert report is not None
        (kept,) = report.samples
        whole = share == 1.0
        attempts.append(
            Attempt(
                share,
                visual_tokens=kept.visual_tokens_before if whole else kept.visual_tokens_after,
                prompt_tokens=kept.prompt_tokens_before if whole else kept.prompt_tokens_after,
                text=text,
                right=is_right(text, sample),
                kv_bytes=answers[0].kv_bytes,
                milliseconds=statistics.median(found.milliseconds for found in answers),
                image=sample.image if whole else overlay(sample.image, kept),
            )
        )
    return attempts[::-1]
