"""`hf-token-compress recommend`: the fewest visual tokens within a limit of loss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..options import check_options
from ..training.options import CollectOptions
from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, notices, results, working
from .data_options import DATA, DataOptions
from .errors import CommandError, one_sentence_errors, stoppable, wrong_arguments
from .options import FRAMES, JsonFlag, Kinds, listed, takes
from .outputs import check_output, write_json
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from ..evaluation import EvaluationSetting, Evaluator, Questions
    from ..evaluation.recommend import Measured, Recommendation, Step
    from .checkpoint import Checkpoint

EXIT_TOO_FEW_QUESTIONS, EXIT_TOO_MUCH_LOST = 3, 4

_WIDEST_SCORER = 24


@dataclass(frozen=True)
class RecommendOptions:
    """What may be recommended, and how sure it must be."""

    max_loss: float = field(
        default=1.0,
        metadata={
            "help": "Percent of the full model's score that may be lost.",
            "interval": "(0, 100)",
        },
    )
    confidence: float = field(
        default=0.95,
        metadata={
            "help": "That the recommended setting loses no more.",
            "interval": "[0.5, 1)",
        },
    )
    scorer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": (
                'Scorers to choose from, separated by commas. "mapper:NAME" scores with the mapper '
                "of that folder or Hub id. By default the mapper that comes with the model, if "
                "there is one, and the untrained default. More scorers need more questions."
            ),
            "metavar": "NAMES",
        },
    )
    retention_ratio: tuple[float, ...] = field(
        default=(0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05),
        metadata={
            "help": "Shares of the visual tokens to choose from, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "RATIOS",
        },
    )
    top_p: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "Values of top_p to choose from, too, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "SHARES",
        },
    )
    min_visual_tokens: int | None = field(
        default=None,
        metadata={
            "help": (
                "Visual tokens from which prompts will be compressed. By default measured: from "
                "where the first token comes earlier on this machine."
            ),
            "interval": "[0, inf)",
        },
    )
    frames: int = field(default=8, metadata=FRAMES)
    batch_size: int = field(
        default=16,
        metadata={"help": "Samples that go through the model at once.", "interval": "[1, inf)"},
    )

    def __post_init__(self) -> None:
        check_options(self)


@one_sentence_errors
@takes(ModelOptions, "model_options")
@takes(RecommendOptions, "options")
@takes(CollectOptions, "answers", only=("metric",))
@takes(TokenCompressionConfig, "changes", only=("mapper",), built=False)
@takes(DataOptions, "data", panel=DATA)
@takes(SceneOptions, "scenes", panel=SCENES, built=False)
def recommend(
    model_options: ModelOptions,
    options: RecommendOptions,
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
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write the setting to.", metavar="FILE"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    r"""Find the setting that keeps the fewest visual tokens and loses no more than `--max-loss`.

    The questions are your own, or about composed images, as for `evaluate`. Without answers, what
    counts is how often the compressed model answers as the full model does. The exit code is 3
    if the questions are too few to tell, and 4 if every setting loses too much.

    **Examples**

    ```
    hf-token-compress recommend --max-loss 5 --per-kind 150
    hf-token-compress recommend --model Qwen/Qwen2-VL-2B-Instruct --data questions.jsonl \
      --max-loss 2 --output setting.json
    ```
    """
    # Everything that can be wrong is checked before the model is loaded.
    for path in (output, answers_file):
        check_output(path)
    composed = scene_options(scenes, composed=not data.given, clips="clip_frames" in scenes)
    source = find_checkpoint(model_options)
    mapper = changes.get("mapper") or source.mapper.get("mapper")
    sequences = _sequences(options, mapper, named=changes.get("mapper") is not None)
    questions = _questions(data, composed, listed(kind), answers.metric, options.frames)
    found = _too_few(len(questions), len(sequences), options)
    if found is None:
        checkpoint = load_checkpoint(source, TokenCompressionConfig())
        with stoppable(lambda: _kept(answers_file)):
            found = _search(checkpoint, questions, sequences, options, answers, answers_file)
    setting = None if found.chosen is None else found.chosen.config
    if setting is not None:
        setting = replace(
            setting, min_visual_tokens=_min_visual_tokens(checkpoint, setting, options)
        )
        write_json(setting.to_dict(), output)
    if as_json:
        content = {
            "model": source.options.model,
            **found.to_dict(),
            "token_compression": None if setting is None else setting.to_dict(),
        }
        typer.echo(json.dumps(content, ensure_ascii=False))
    else:
        _print(source.options.model, found, setting, output, labelled=questions.labelled)
    if found.verdict != "recommended":
        few = found.verdict == "too_few_questions"
        raise typer.Exit(EXIT_TOO_FEW_QUESTIONS if few else EXIT_TOO_MUCH_LOST)


def _sequences(
    options: RecommendOptions, mapper: str | None, *, named: bool
) -> dict[str, list[EvaluationSetting]]:
    """The settings of each scorer, from the most tokens down."""
    from ..evaluation.settings import TRUTH, EvaluationSetting, settings_of
    from ..scorers import available_scorers

    untrained = TokenCompressionConfig().scorer_name
    scorers = options.scorer or (untrained if mapper is None else f"mapper,{untrained}").split(",")
    for name in scorers:
        if name not in available_scorers() and not name.startswith("mapper:"):
            reason = " It knows the answers." if name == TRUTH else ""
            raise CommandError(
                f"There is no scorer {name!r} to recommend.{reason} Choose from "
                f"{', '.join(available_scorers())}.",
                exit_code=2,
            )
    if named and "mapper" not in scorers:
        raise CommandError(
            f"--mapper {mapper} is not used without the scorer mapper: add mapper to --scorer, or "
            "leave --mapper out.",
            exit_code=2,
        )
    sequences: dict[str, list[EvaluationSetting]] = {}
    with wrong_arguments():
        for setting in settings_of(
            scorers, sorted(set(options.retention_ratio), reverse=True), mapper=mapper
        ):
            sequences.setdefault(setting.name, []).append(setting)
        if options.top_p:
            for setting in settings_of(scorers, [1.0], mapper=mapper):
                sequences[f"{setting.name}, top_p"] = [
                    EvaluationSetting(setting.scorer, replace(setting.config, top_p=share))
                    for share in sorted(set(options.top_p), reverse=True)
                ]
    return sequences


def _questions(
    data: DataOptions,
    composed: SceneOptions,
    kinds: Sequence[str],
    metric: Any,
    frames: int,
) -> Questions:
    """The user's own questions, or composed ones."""
    from ..evaluation import Questions

    if not data.given:
        with wrong_arguments():
            return Questions(composed.samples(kinds))
    source = data.source()
    data.check(source, metric)
    with wrong_arguments():
        return Questions(source, kinds=kinds, num_frames=frames)


def _too_few(questions: int, sequences: int, options: RecommendOptions) -> Recommendation | None:
    """What to say where no answers whatever could show that so little is lost."""
    from ..evaluation.recommend import Recommendation, least_questions, level_of_each

    level = level_of_each(options.confidence, sequences)
    least = least_questions(options.max_loss, level)
    if questions >= least:
        return None
    return Recommendation(options.max_loss, options.confidence, questions, questions_needed=least)


def _search(
    checkpoint: Checkpoint,
    questions: Questions,
    sequences: Mapping[str, Sequence[EvaluationSetting]],
    options: RecommendOptions,
    answers: CollectOptions,
    answers_file: Path | None,
) -> Recommendation:
    """Ask the full model once, and each setting that decides something."""
    from ..compression import uncompress
    from ..evaluation import Evaluator
    from ..evaluation.recommend import recommend as choose

    evaluator = Evaluator(
        uncompress(checkpoint.model),
        checkpoint.processor,
        questions,
        batch_size=options.batch_size,
        metric=answers.metric,
        divergence=False,
        answers=answers_file,
    )
    with counting("Asking the full model", len(questions)) as done:
        (full,) = evaluator.run([], after_batch=done).results
    measured = {name: _measured(evaluator, len(questions), own) for name, own in sequences.items()}
    return choose(
        full.scores(),
        measured,
        max_loss=options.max_loss,
        confidence=options.confidence,
        clusters=full.clusters,
    )


def _measured(
    evaluator: Evaluator, questions: int, settings: Sequence[EvaluationSetting]
) -> Iterator[Measured]:
    """Ask with one setting after the other, as far as they are asked for."""
    from ..evaluation.recommend import Measured

    for setting in settings:
        # The full model's answers, which are known, are counted again.
        text = f"Asking with {setting.name}, {_budget(setting.config)}"
        with counting(text, 2 * questions) as done:
            found = evaluator.run([setting], after_batch=done, known_answers=done.earlier)
        full, result = found.results
        yield Measured.of(full, result)


def _min_visual_tokens(
    checkpoint: Checkpoint, setting: TokenCompressionConfig, options: RecommendOptions
) -> int:
    """Visual tokens from which the setting is faster here."""
    from ..evaluation.speed import break_even

    if options.min_visual_tokens is not None:
        return options.min_visual_tokens
    with working("Measuring from how many visual tokens it is faster"):
        found = break_even(checkpoint.model, checkpoint.processor, setting)
    if found is not None:
        return found
    default = TokenCompressionConfig().min_visual_tokens
    notices().print(
        "The first token does not come earlier on this machine, however many visual tokens there "
        f"are: min_visual_tokens stays at {default}.",
        style="yellow",
    )
    return default


def _kept(answers_file: Path | None) -> str:
    """What a stopped run leaves."""
    if answers_file is None:
        return "Nothing is kept: give --answers to go on from where a run stops."
    return f"The answers so far are in {str(answers_file)!r}: the same command goes on from there."


def _budget(config: TokenCompressionConfig) -> str:
    return (
        f"ratio {config.retention_ratio:g}" if config.top_p is None else f"top_p {config.top_p:g}"
    )


def _print(
    model: str,
    found: Recommendation,
    setting: TokenCompressionConfig | None,
    output: Path | None,
    *,
    labelled: bool,
) -> None:
    console = results()
    if found.steps:
        what = "Score" if labelled else "Agreement with the full model"
        title = f"{what} of {model} on {found.questions} questions, in percent of the full model's"
        console.print(Text(title, style="italic"))
        console.print(_table(found))
    typer.echo(_verdict(found))
    if setting is not None:
        typer.echo(_how_to_use(model, setting, output))


def _table(found: Recommendation) -> Table:
    table = Table()
    table.add_column("Scorer", max_width=_WIDEST_SCORER, overflow="fold")
    table.add_column("Budget")
    for heading in ("Kept", "Score", "Loses at most"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for step in found.steps:
        table.add_row(
            step.scorer,
            _budget(step.config),
            f"{step.kept_share:.0%}",
            f"{step.percent_of_full:.1f}",
            f"{step.loss_bound:.1f}",
            _mark(step, found),
        )
    return table


def _mark(step: Step, found: Recommendation) -> str:
    if step is found.chosen:
        return "recommended"
    if step.accepted:
        return "within"
    if step.questions_needed is None:
        return "too much"
    return f"needs about {step.questions_needed}"


def _verdict(found: Recommendation) -> str:
    limit = f"{found.max_loss:g} % of the full model's score"
    sure = f"{100 * found.confidence:g} % confidence"
    if found.chosen is not None:
        return f"With {sure}, the recommended setting loses at most {limit}."
    if found.verdict == "too_few_questions":
        return (
            f"The data is too small to tell: to show with {sure} that at most {limit} is lost "
            f"takes about {found.questions_needed} questions, and there are {found.questions}. "
            "Ask more questions, allow a larger --max-loss, or name fewer scorers."
        )
    return (
        f"Nothing is recommended: every scorer loses more than {limit} at its largest ratio. Allow "
        "a larger --max-loss, or try larger ratios."
    )


def _how_to_use(model: str, setting: TokenCompressionConfig, output: Path | None) -> str:
    """Lines of Python that load the model with the setting and save both."""
    if output is None:
        defaults = TokenCompressionConfig().to_dict()
        argument = repr({name: value for name, value in setting.items() if value != defaults[name]})
    else:
        argument = f"json.load(open({str(output)!r}))"
    return "\n".join(
        [
            "",
            *(["import json", ""] if output is not None else []),
            "import hf_token_compress",
            "from transformers import AutoModelForImageTextToText",
            "",
            "model = AutoModelForImageTextToText.from_pretrained(",
            f"    {model!r},",
            f"    token_compression={argument},",
            ")",
            'model.save_pretrained("FOLDER")  # with the setting',
        ]
    )
