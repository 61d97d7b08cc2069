"""`hf-token-compress evaluate`: what answers keep of their accuracy, by scorer and budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import TokenCompressionConfig
from ..training.options import CollectOptions
from .checkpoint import Checkpoint, ModelOptions, find_checkpoint, load_checkpoint
from .console import counting
from .data_options import DATA, DataOptions
from .errors import CommandError, one_sentence_errors, stoppable
from .evaluate_options import EvaluateOptions
from .evaluate_table import print_evaluation
from .options import JsonFlag, Kinds, OutputFile, listed, takes
from .outputs import check_output, numbered_paths, write_json
from .questions import name_left_out, read_questions
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from ..evaluation import Evaluation, EvaluationSetting, Evaluator, Questions


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(EvaluateOptions, "options")
@takes(CollectOptions, "answers", only=("metric",))
@takes(TokenCompressionConfig, "changes", only=("mapper",), built=False)
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
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown tables and nothing else.")
    ] = False,
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

    The questions are your own (`--data` or `--dataset`), or about images composed of drawings
    (`hf_token_compress.data.scenes`), which the tiny models know: each image shows one drawing
    per cell. With `--clip-frames` the questions are about clips. Without right answers, those of
    the uncompressed model are compared with.

    With `--output table.json`, every answer goes to `table.answers.jsonl` at once: after a stop,
    the same command goes on from there, with more scorers or budgets if you like.

    **Examples**

    ```
    hf-token-compress evaluate --model tiny-qwen2-vl
    hf-token-compress evaluate --scorer mapper,attention --retention-ratio 0.25 \
      --output table.json --plot curve.png
    hf-token-compress evaluate --model tiny-llava-onevision --clip-frames 4
    hf-token-compress evaluate --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl \
      --max-visual-tokens 256,64 --downsample
    ```
    """
    # Everything that can be wrong is checked before the model is loaded.
    _check_outputs(markdown, as_json, output, plot)
    composed = scene_options(scenes, composed=not data.given, clips="clip_frames" in scenes)
    mapper = changes.get("mapper")
    scorers = options.scorers(mapper)
    source = find_checkpoint(model_options)
    if mapper is None and "mapper" in scorers:
        mapper = source.mapper.get("mapper")
    questions = read_questions(data, composed, listed(kind), answers.metric, options.frames)
    settings = options.settings(scorers, mapper, questions)
    about: dict[str, Any] = {"model": source.options.model, "mapper": mapper}
    if data.given:
        about["data"] = str(data.data or data.dataset)
    else:
        about["seed"] = composed.seed
    run = _Run(about, settings, markdown, as_json, output, plot)
    checkpoint = load_checkpoint(source, TokenCompressionConfig())
    evaluator = _evaluator(checkpoint, questions, options, answers.metric, output)
    with stoppable(lambda: run.kept(evaluator)):
        passes = 1 + len(settings)
        with counting("Asking", passes * len(questions)) as done:
            found = evaluator.run(settings, after_batch=done, known_answers=done.earlier)
    name_left_out(found.left_out, len(questions) + len(questions.left_out))
    run.write(found)


@dataclass(frozen=True)
class _Run:
    """What is asked for, and where the results go."""

    about: dict[str, Any]
    settings: tuple[EvaluationSetting, ...]
    markdown: bool
    as_json: bool
    output: Path | None
    plot: Path | None

    def write(self, found: Evaluation, **more: Any) -> None:
        """Print the results, and write and draw them where that was asked for."""
        from ..evaluation.table import sample_rows, table_rows

        rows = table_rows(found)
        if self.plot is not None:
            _draw(self.plot, self.about["model"], rows)
        table = {
            **self.about,
            **more,
            "labelled": found.labelled,
            "left_out": [asdict(item) for item in found.left_out],
            "rows": rows,
            "samples": [sample_rows(result) for result in found.results],
        }
        write_json(table, self.output)
        if self.as_json:
            typer.echo(json.dumps(table, ensure_ascii=False))
        else:
            print_evaluation(self.about["model"], found, rows, markdown=self.markdown)

    def kept(self, evaluator: Evaluator) -> str:
        """What a stopped run leaves."""
        found = evaluator.found(self.settings)
        answered = len(found.results[0].samples)
        if answered:
            self.write(found, stopped=True)
        shown = f"The table is about the {answered} questions that all settings answered"
        if self.output is None:
            return f"{shown}: with --output, a run can go on after a stop."
        return f"{shown}: run the same command again to go on."


def _evaluator(
    checkpoint: Checkpoint,
    questions: Questions,
    options: EvaluateOptions,
    metric: Any,
    output: Path | None,
) -> Evaluator:
    from ..compression import uncompress
    from ..evaluation import Evaluator

    return Evaluator(
        uncompress(checkpoint.model),
        checkpoint.processor,
        questions,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        metric=metric,
        divergence=options.divergence or None,
        log_probability=options.log_probability,
        answers=None if output is None else output.with_suffix(".answers.jsonl"),
    )


def _check_outputs(markdown: bool, as_json: bool, output: Path | None, plot: Path | None) -> None:
    if markdown and as_json:
        raise CommandError("--markdown and --json exclude each other.", exit_code=2)
    check_output(output)
    if plot is not None:
        from ..viz.figures import figure_class

        numbered_paths(plot, 1)
        figure_class()


def _draw(path: Path, model: str, rows: Sequence[dict[str, Any]]) -> None:
    from ..viz import retention_curve, save_figure

    title = f"{model}: {rows[0]['asked']} questions, 95 % intervals"
    save_figure(retention_curve(rows, title=title), path)
