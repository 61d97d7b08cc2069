"""`hf-token-compress evaluate`: what answers keep of their accuracy, by scorer and budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import TokenCompressionConfig
from ..training.options import CollectOptions
from .checkpoint import (
    CheckpointSource,
    ModelOptions,
    check_mappers,
    find_checkpoint,
    load_checkpoint,
)
from .console import counting
from .data_options import DATA, DataOptions
from .errors import CommandError, one_sentence_errors, stoppable
from .evaluate_options import EvaluateOptions
from .evaluate_outputs import Run
from .options import JsonFlag, Kinds, MarkdownFlag, OutputFile, listed, takes
from .outputs import Outputs, check_apart
from .questions import make_evaluator, read_questions
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from ..evaluation import Questions

SOME_FAILED = 3
"""Exit code where the figures are without questions that should have been asked."""

_OF_SETTINGS = ("mapper", "structure_share", "selection", "position_ids")


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(EvaluateOptions, "options")
@takes(CollectOptions, "answers", only=("metric",))
@takes(TokenCompressionConfig, "changes", only=_OF_SETTINGS, built=False)
@takes(DataOptions, "data", panel=DATA)
@takes(SceneOptions, "scenes", panel=SCENES, built=False)
def evaluate(
    model_options: ModelOptions,
    options: EvaluateOptions,
    answers: CollectOptions,
    changes: dict[str, Any],
    data: DataOptions,
    scenes: dict[str, Any],
    kind: Kinds = None,
    markdown: MarkdownFlag = False,
    output: OutputFile = None,
    as_json: JsonFlag = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw accuracy against the share kept there; needs matplotlib.", metavar="FILE"
        ),
    ] = None,
) -> None:
    r"""Measure what answers keep of their accuracy, by scorer and budget.

    The questions are your own, or about images composed of drawings, which the tiny models know;
    with `--clip-frames` they are about clips. Without right answers, answers are compared with the
    uncompressed model's. The exit code is 3 if questions fail while they are asked, unless
    `--skip-bad` is given.

    `--output table.json` writes answers to `table.answers.jsonl` as soon as they are there: after
    a stop, the same command continues, with more scorers or budgets if you like.

    **Examples**

    ```
    hf-token-compress evaluate --scorer mapper,attention --retention-ratio 0.25 --plot curve.png
    hf-token-compress evaluate --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl
    ```
    """
    outputs = Outputs(markdown, as_json, output, plot)
    outputs.check()
    check_apart({"--data": data.data, "--output": output, "--plot": plot})
    composed = scene_options(scenes, composed=not data.given, clips="clip_frames" in scenes)
    source = find_checkpoint(model_options)
    scorers, mapper = options.scorers(changes.pop("mapper", None), source)
    questions = read_questions(data, composed, listed(kind), answers.metric, options.frames)
    if options.log_probability and not questions.labelled:
        raise CommandError(
            "--log-probability needs right answers, but no sample has one: leave it out, or name "
            "the answers with --answer-column.",
            exit_code=2,
        )
    settings = options.settings(scorers, mapper, questions, changes)
    about = {"model": source.options.model, "mapper": mapper, **changes, **_about(data, composed)}
    run = Run(outputs, about, settings)
    if _measure(run, source, questions, options, answers.metric) and not data.skip_bad:
        raise typer.Exit(SOME_FAILED)


def _measure(
    run: Run, source: CheckpointSource, questions: Questions, options: EvaluateOptions, metric: Any
) -> bool:
    """Load the model, ask, and show the results; whether questions failed."""
    check_mappers(setting.config for setting in run.settings)
    checkpoint = load_checkpoint(source, TokenCompressionConfig())
    output = run.outputs.output
    evaluator = make_evaluator(
        checkpoint,
        questions,
        options,
        metric,
        None if output is None else _answers_file(output),
        divergence=options.divergence or None,
        log_probability=options.log_probability,
    )
    with stoppable(lambda: run.kept(evaluator)):
        passes = 1 + len(run.settings)
        with counting("Asking", passes * len(evaluator)) as done:
            found = evaluator.run(run.settings, after_batch=done, known_answers=done.earlier)
    run.write(found)
    return len(found.left_out) > len(questions.left_out)


def _about(data: DataOptions, composed: SceneOptions) -> dict[str, Any]:
    return {"data": str(data.data or data.dataset)} if data.given else {"seed": composed.seed}


def _answers_file(output: Path) -> Path:
    name = output.stem if output.suffix == ".json" else output.name
    return output.with_name(f"{name}.answers.jsonl")
