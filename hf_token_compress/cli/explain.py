"""`hf-token-compress explain`: which visual tokens an answer depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..asking import prepare_question
from ..config import TokenCompressionConfig
from ..training.options import CollectOptions
from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
from .console import notices, results, working
from .errors import one_sentence_errors
from .options import JsonFlag, OutputFolder, takes
from .outputs import make_folder, write_json
from .question_options import QuestionOptions

if TYPE_CHECKING:
    from PIL import Image

    from ..relevance import SampleRelevance
    from ..relevance.faithfulness import SampleFaithfulness
    from .checkpoint import Checkpoint

_CURVES = {
    "least_first": "Least relevant\nremoved first",
    "most_first": "Most relevant\nremoved first",
    "random": "Random",
}


@one_sentence_errors
@takes(QuestionOptions, "question")
@takes(ModelOptions, "model_options", required=("model",))
@takes(CollectOptions, "rule", panel="Relevance", only=("rule", "rule_options", "recursive"))
def explain(
    question: QuestionOptions,
    model_options: ModelOptions,
    rule: CollectOptions,
    output: OutputFolder,
    answer: Annotated[
        str | None,
        typer.Option(help="The answer to explain. By default the model's own.", metavar="TEXT"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    r"""See which visual tokens an answer depends on, and whether removing the others harms it.

    Writes to the folder: `relevance.png` (heat maps over the images, or over the frames of a
    video), `tokens.png` (one for each token of the answer), `faithfulness.png` (the answer's
    probability as tokens are removed; needs matplotlib) and `relevance.json`.

    **Examples**

    ```
    hf-token-compress explain --model tiny-qwen2-vl --image board.png \
      --prompt "Where is the cat?" --output why
    ```
    """
    images = question.read_images()
    make_folder(output)
    checkpoint = load_checkpoint(find_checkpoint(model_options), TokenCompressionConfig())
    with working("Explaining"):
        videos = question.read_videos(checkpoint.processor)
        inputs = prepare_question(checkpoint, images, question.prompt, videos)
        sample, followed = _explain(checkpoint, inputs, question, rule, answer)
        words = [checkpoint.processor.decode(token) for token in sample.answer_ids]
        written = _write_images(output, [*([image] for image in images), *videos], sample, words)
    written += _write_plot(output / "faithfulness.png", followed)
    summary = {
        "model": checkpoint.name,
        "prompt": question.prompt,
        "answer": checkpoint.processor.decode(sample.answer_ids).strip(),
        "answer_tokens": words,
        "rule": rule.rule,
        "scores": sample.scores.tolist(),
        "faithfulness": _as_json(followed),
    }
    path = output / "relevance.json"
    write_json(summary, path)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print_summary(summary, [*written, path])


def _explain(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Any],
    question: QuestionOptions,
    rule: CollectOptions,
    answer: str | None,
) -> tuple[SampleRelevance, SampleFaithfulness]:
    """The relevance of the visual tokens, and what removing them does to the answer."""
    import torch

    from ..relevance import faithfulness, relevance

    given = None
    if answer is not None:
        ids = checkpoint.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        given = [torch.tensor(ids, dtype=torch.long)]
    sample = relevance(
        checkpoint.model,
        inputs,
        answer_ids=given,
        max_new_tokens=question.max_new_tokens,
        rule=rule.rule,
        rule_options=rule.rule_options,
        recursive=rule.recursive,
        return_per_token=True,
    ).samples[0]
    followed = faithfulness(
        checkpoint.model, inputs, [sample.scores], answer_ids=[sample.answer_ids]
    ).samples[0]
    return sample, followed


def _write_images(
    output: Path,
    visuals: Sequence[Sequence[Image.Image]],
    sample: SampleRelevance,
    words: Sequence[str],
) -> list[Path]:
    """Heat maps of all visuals, and of each answer token."""
    from ..viz import answer_heat_maps, prompt_heat_maps

    whole, tokens = output / "relevance.png", output / "tokens.png"
    prompt_heat_maps(visuals, sample).save(whole)
    answer_heat_maps(visuals, sample, words).save(tokens)
    return [whole, tokens]


def _write_plot(path: Path, followed: SampleFaithfulness) -> list[Path]:
    from ..viz import removal_curve, save_figure

    try:
        save_figure(removal_curve(followed), path)
    except ImportError as error:
        notices().print(Text(f"No plot was drawn: {error}", style="yellow"), soft_wrap=True)
        return []
    return [path]


def _as_json(followed: SampleFaithfulness) -> dict[str, Any]:
    curves = {name: getattr(followed, name) for name in _CURVES}
    return {
        name: {
            "retention_ratios": curve.retention_ratios.tolist(),
            "log_probabilities": curve.log_probabilities.tolist(),
            "matches": curve.matches.tolist(),
            "area": curve.area,
        }
        for name, curve in curves.items()
    }


def _print_summary(summary: Mapping[str, Any], paths: Sequence[Path]) -> None:
    console = results()
    console.print(Text(summary["answer"] or "(an empty answer)", style="bold"))
    table = Table(title=f"Log-probability of the answer; rule {summary['rule']}")
    table.add_column("Kept", justify="right")
    for label in _CURVES.values():
        table.add_column(label, justify="right")
    curves = [summary["faithfulness"][name] for name in _CURVES]
    for place, ratio in enumerate(curves[0]["retention_ratios"]):
        values = (curve["log_probabilities"][place] for curve in curves)
        table.add_row(f"{ratio:.0%}", *(f"{round(value, 2) + 0.0:.2f}" for value in values))
    table.add_row("Mean", *(f"{curve['area']:.2f}" for curve in curves))
    console.print(table)
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
