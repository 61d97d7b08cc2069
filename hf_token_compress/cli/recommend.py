"""`hf-token-compress recommend`: the fewest visual tokens within a limit of loss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..config import TokenCompressionConfig
from ..hub import first_line
from ..training.options import CollectOptions
from .checkpoint import ModelOptions, check_mappers, find_checkpoint, load_checkpoint
from .console import counting, notices, working
from .data_options import DATA, DataOptions
from .errors import one_sentence_errors, stoppable
from .evaluate_options import EvaluateOptions
from .options import JsonFlag, Kinds, listed, takes
from .outputs import check_apart, check_output, write_json
from .questions import make_evaluator, name_left_out, read_questions
from .recommend_options import RecommendOptions
from .recommend_table import print_recommendation
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from ..evaluation import EvaluationSetting, Evaluator, Questions
    from ..evaluation.recommend import Measured, Recommendation, Verdict
    from .checkpoint import Checkpoint, CheckpointSource

SettingFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write the setting to.", metavar="FILE"),
]
EXIT_CODES: Mapping[Verdict, int] = {
    "recommended": 0,
    "too_few_questions": 3,
    "too_much_lost": 4,
}


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(RecommendOptions, "options")
@takes(EvaluateOptions, "asking", only=("frames", "batch_size", "max_new_tokens"))
@takes(CollectOptions, "answers", only=("metric",))
@takes(TokenCompressionConfig, "changes", only=("mapper",), built=False)
@takes(DataOptions, "data", panel=DATA)
@takes(SceneOptions, "scenes", panel=SCENES, built=False)
def recommend(
    model_options: ModelOptions,
    options: RecommendOptions,
    asking: EvaluateOptions,
    answers: CollectOptions,
    changes: dict[str, Any],
    data: DataOptions,
    scenes: dict[str, Any],
    kind: Kinds = None,
    answers_file: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            help="File that keeps the answers, with which a stopped run goes on.",
            metavar="FILE",
        ),
    ] = None,
    output: SettingFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the setting that keeps the fewest visual tokens and loses no more than `--max-loss`.

    The questions are your own, or about composed images, as for `evaluate`. Without answers, what
    counts is how often the compressed model answers as the full model does. The exit code is 3 if
    the questions are too few to tell, and 4 if every setting loses too much.

    **Examples**

    ```
    hf-token-compress recommend --max-loss 5 --per-kind 150
    hf-token-compress recommend --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl
    ```
    """
    for path in (output, answers_file):
        check_output(path)
    check_apart({"--data": data.data, "--answers": answers_file, "--output": output})
    composed = scene_options(scenes, composed=not data.given, clips="clip_frames" in scenes)
    source = find_checkpoint(model_options)
    named = changes.get("mapper")
    sequences = options.sequences(named or source.mapper.get("mapper"), named=named is not None)
    questions = read_questions(data, composed, listed(kind), answers.metric, asking.frames)
    found, setting = _too_few(len(questions), len(sequences), options), None
    if found is None:
        check_mappers(own.config for settings in sequences.values() for own in settings)
        checkpoint = load_checkpoint(source, TokenCompressionConfig())
        evaluator = make_evaluator(checkpoint, questions, asking, answers.metric, answers_file)
        with stoppable(lambda: _kept(answers_file)):
            found = _search(evaluator, questions, sequences, options)
            if found.chosen is not None:
                setting = _with_minimum(checkpoint, found.chosen.config, options)
    _show(found, setting, source, output, labelled=questions.labelled, as_json=as_json)
    raise typer.Exit(EXIT_CODES[found.verdict])


def _show(
    found: Recommendation,
    setting: TokenCompressionConfig | None,
    source: CheckpointSource,
    output: Path | None,
    *,
    labelled: bool,
    as_json: bool,
) -> None:
    """Print what was found, and write the setting where that was asked for."""
    model = source.options.model
    if setting is not None:
        write_json(setting.to_dict(), output)
    if as_json:
        # The setting to save says from how many tokens it is used; those that were tested do not.
        saved = None if setting is None else setting.to_dict()
        content = {"model": model, **found.to_dict(), "token_compression": saved}
        typer.echo(json.dumps(content, ensure_ascii=False))
    else:
        print_recommendation(model, source.location, found, setting, output, labelled=labelled)


def _too_few(questions: int, sequences: int, options: RecommendOptions) -> Recommendation | None:
    """What to say where no answers whatever could show that so little is lost."""
    from ..evaluation.recommend import Recommendation, least_questions, level_of_each

    level = level_of_each(options.confidence, sequences)
    least = least_questions(options.max_loss, level)
    if questions >= least:
        return None
    return Recommendation(
        options.max_loss, options.confidence, level, questions, questions_needed=least
    )


def _search(
    evaluator: Evaluator,
    questions: Questions,
    sequences: Mapping[str, Sequence[EvaluationSetting]],
    options: RecommendOptions,
) -> Recommendation:
    """Ask the full model once, and each setting that decides something."""
    from ..evaluation.recommend import Measured
    from ..evaluation.recommend import recommend as choose

    def measured(settings: Sequence[EvaluationSetting]) -> Iterator[Measured]:
        for setting in settings:
            # The full model's answers, which are known, are counted again.
            text = f"Asking with {setting.name} at {setting.budget_text}"
            with counting(text, 2 * len(questions)) as done:
                found = evaluator.run([setting], after_batch=done, known_answers=done.earlier)
            yield Measured.of(*found.results)

    with counting("Asking the full model", len(questions)) as done:
        first = evaluator.run([], after_batch=done, known_answers=done.earlier)
    name_left_out(first.left_out)
    (full,) = first.results
    return choose(
        full.scores(),
        {name: measured(settings) for name, settings in sequences.items()},
        max_loss=options.max_loss,
        confidence=options.confidence,
        clusters=full.clusters,
    )


def _with_minimum(
    checkpoint: Checkpoint, setting: TokenCompressionConfig, options: RecommendOptions
) -> TokenCompressionConfig:
    """The setting for prompts of so many visual tokens that it is faster here."""
    from ..evaluation.speed import break_even

    if options.min_visual_tokens is not None:
        return replace(setting, min_visual_tokens=options.min_visual_tokens)
    reason = "compression does not bring the first token earlier on this machine"
    found = None
    with working("Measuring from how many visual tokens it is faster"):
        try:
            found = break_even(checkpoint.model, checkpoint.processor, setting)
        except ValueError as error:  # the recommendation holds all the same
            reason = f"speed cannot be measured ({first_line(error).rstrip('.')})"
    if found is not None:
        return replace(setting, min_visual_tokens=found)
    default = TokenCompressionConfig().min_visual_tokens
    text = f"min_visual_tokens stays at {default}, because {reason}."
    notices().print(Text(text, style="yellow"), soft_wrap=True)
    return replace(setting, min_visual_tokens=default)


def _kept(answers_file: Path | None) -> str:
    """What a stopped run leaves."""
    if answers_file is None:
        return "Nothing is kept: give --answers to go on from where a run stops."
    return f"The answers so far are in {str(answers_file)!r}: the same command goes on from there."
