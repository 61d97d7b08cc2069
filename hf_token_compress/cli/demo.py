"""`hf-token-compress demo`: questions about held-out images, with fewer and fewer tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..tiny import own_mapper
from .console import notices, quiet_libraries, results, working
from .errors import one_sentence_errors
from .options import (
    DeviceOption,
    MapperOption,
    ModelOption,
    ScorerOption,
    ScorerOptionsOption,
    parse_scorer_options,
)
from .pictures import make_folder

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .demo_examples import Attempt, Trial


@one_sentence_errors
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pictures.", metavar="FOLDER")
    ] = Path("token_compression_demo"),
    model: ModelOption = "tiny-qwen2-vl",
    questions: Annotated[int, typer.Option(min=1, help="How many questions to ask.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first picture.")] = 0,
    scorer: ScorerOption = None,
    scorer_option: ScorerOptionsOption = None,
    mapper: MapperOption = None,
    device: DeviceOption = None,
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
    if scorer is None and mapper is None:
        mapper = own_mapper(model)
    compression = TokenCompressionConfig(
        scorer=scorer, scorer_options=parse_scorer_options(scorer_option or []), mapper=mapper
    )
    make_folder(output)

    from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
    from .demo_examples import held_out_questions, try_question, warm_up

    checkpoint = load_checkpoint(find_checkpoint(ModelOptions(model, device=device)), compression)
    items = held_out_questions(questions, seed)
    trials: list[Trial] = []
    paths: list[Path] = []
    with quiet_libraries(progress_bars=False):
        with working("Warming up"):
            warm_up(checkpoint, items[0])
        for number, item in enumerate(
            track(items, "Asking", console=notices(), transient=True), start=1
        ):
            trial = try_question(checkpoint, item)
            trials.append(trial)
            path = output / f"{number:02d}-{item.question.kind}.png"
            trial.contact_sheet(compression.scorer_name).save(path)
            paths.append(path)
    console = results()
    console.print(_table(trials))
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
    console.print(Text(_what_was_measured(checkpoint, len(trials))))


def _table(trials: list[Trial]) -> Table:
    table = Table(title="Answers with all and some visual tokens", title_justify="left")
    table.add_column("Question", ratio=1)
    table.add_column("Kept", justify="right")
    table.add_column("Visual\ntokens", justify="right")
    table.add_column("Prompt\ntokens", justify="right")
    table.add_column("Answer")
    table.add_column("")
    table.add_column("ms", justify="right")
    for trial in trials:
        question = trial.item.question
        labels = _padded([Text(question.text, "bold"), Text(f"True answer: {question.answer}")])
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
    return (
        f"Measured here and now: {questions} questions to {checkpoint.name} ({parameters:.1f} "
        f"million parameters, {dtype}) on {model.device.type}{threads}. Times are the median of "
        f"{REPEATS} whole calls (vision, scoring, rewriting and generation) after a warm-up. So "
        "few questions show how it works, not how well; and the times of a model this small say "
        "little about a large one."
    )
