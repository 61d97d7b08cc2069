"""`hf-token-compress demo`: questions about held-out images, with fewer and fewer tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..tiny import own_mapper
from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, quiet_libraries, results, working
from .errors import one_sentence_errors
from .options import takes
from .outputs import make_folder

if TYPE_CHECKING:
    from ..data.sample import Sample
    from .checkpoint import Checkpoint
    from .demo_examples import Attempt, Trial


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
    if "scorer" not in changes and "mapper" not in changes:
        changes["mapper"] = own_mapper(model_options.model)
    compression = TokenCompressionConfig(**changes)
    make_folder(output)

    from .demo_examples import held_out_questions

    checkpoint = load_checkpoint(find_checkpoint(model_options), compression)
    trials = _try_questions(checkpoint, held_out_questions(questions, seed))
    console = results()
    console.print(_table(trials, compression.scorer_name))
    for number, trial in enumerate(trials, start=1):
        path = output / f"{number:02d}-{trial.sample.kind}.png"
        trial.contact_sheet(compression.scorer_name).save(path)
        console.print(Text(str(path)), soft_wrap=True)
    console.print(Text(_what_was_measured(checkpoint, len(trials))))


def _try_questions(checkpoint: Checkpoint, samples: Sequence[Sample]) -> list[Trial]:
    from .demo_examples import try_question, warm_up

    trials = []
    with quiet_libraries(progress_bars=False):
        with working("Warming up"):
            warm_up(checkpoint, samples[0])
        with counting("Asking", len(samples)) as done:
            for sample in samples:
                trials.append(try_question(checkpoint, sample))
                done(1)
    return trials


def _table(trials: list[Trial], scorer_name: str) -> Table:
    title = Text(f"Answers with all and some visual tokens; scorer {scorer_name}")
    table = Table(title=title, title_justify="left")
    table.add_column("Question", ratio=1)
    table.add_column("Kept", justify="right")
    table.add_column("Visual\ntokens", justify="right")
    table.add_column("Prompt\ntokens", justify="right")
    table.add_column("Answer")
    table.add_column("")
    table.add_column("ms", justify="right")
    for trial in trials:
        sample = trial.sample
        labels = _padded([Text(sample.question, "bold"), Text(f"Correct answer: {sample.answer}")])
        for label, attempt in zip(labels, trial.attempts, strict=False):
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
    by_share = zip(*(trial.attempts for trial in trials), strict=True)
    for label, attempts in zip(
        _padded([Text("All questions, mean", "bold")]), by_share, strict=False
    ):
        table.add_row(
            label,
            _kept(attempts[0]),
            f"{statistics.mean(attempt.visual_tokens for attempt in attempts):.1f}",
            f"{statistics.mean(attempt.prompt_tokens for attempt in attempts):.1f}",
            f"{sum(attempt.right for attempt in attempts)} of {len(attempts)}",
            "right",
            f"{statistics.mean(attempt.milliseconds for attempt in attempts):.0f}",
        )
    return table


def _padded(labels: list[Text]) -> Iterator[Text]:
    """Labels of the first rows of a section, then empty ones without end."""
    return itertools.chain(labels, itertools.repeat(Text()))


def _kept(attempt: Attempt) -> str:
    return "all" if attempt.share == 1.0 else f"{attempt.share:.0%}"


def _what_was_measured(checkpoint: Checkpoint, questions: int) -> str:
    import torch

    from .demo_examples import REPEATS

    model = checkpoint.model
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    threads = f" (threads: {torch.get_num_threads()})" if model.device.type == "cpu" else ""
    dtype = str(model.dtype).removeprefix("torch.")
    plural = "" if questions == 1 else "s"
    return (
        f"Measured here and now: {questions} question{plural} to {checkpoint.name} "
        f"({parameters:.1f} million parameters, {dtype}) on {model.device.type}{threads}. Times "
        f"are the median of {REPEATS} whole calls (vision, scoring, rewriting and generation) "
        "after a warm-up. So few questions show how it works, not how well, and the times of a "
        "model this small say little about a large one."
    )
