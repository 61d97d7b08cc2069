"""`hf-token-compress explain`: which visual tokens an answer rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from .console import notices, quiet_libraries, results, working
from .errors import CommandError, one_sentence_errors
from .options import (
    DEFAULT_FRAMES,
    DeviceOption,
    DtypeOption,
    FramesOption,
    ModelOption,
    VideoOption,
    parse_key_values,
)
from .pictures import make_folder, read_picture
from .videos import read_video

if TYPE_CHECKING:
    from PIL import Image

    from ..relevance import SampleRelevance
    from ..relevance.faithfulness import SampleFaithfulness
    from .checkpoint import Checkpoint

RULE_PANEL = "Rule"


@one_sentence_errors
def explain(
    model: ModelOption,
    prompt: Annotated[str, typer.Option(help="The question.", metavar="TEXT")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pictures.", metavar="FOLDER")
    ],
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture; may be repeated.", metavar="FILE")
    ] = None,
    video: VideoOption = None,
    frames: FramesOption = DEFAULT_FRAMES,
    answer: Annotated[
        str | None,
        typer.Option(help="The answer to explain; by default the model's own.", metavar="TEXT"),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How relevance is worked out; the measured best by default.",
            metavar="NAME",
            rich_help_panel=RULE_PANEL,
        ),
    ] = None,
    rule_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the rule, such as target=log_probability; may be repeated.",
            metavar="KEY=VALUE",
            rich_help_panel=RULE_PANEL,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            help="Explain again after each removal of the least relevant tokens.",
            rich_help_panel=RULE_PANEL,
        ),
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 16,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
) -> None:
    r"""See which visual tokens an answer rests on, and whether removing the others harms it.

    Writes to the folder: `relevance.png` (heat maps over the images, or over the frames of a
    video), `tokens.png` (one for each token of the answer), `faithfulness.png` (the answer's
    probability as tokens are removed; needs matplotlib) and `relevance.json`.

    **Examples**

    ```
    hf-token-compress explain --model tiny-qwen2-vl --image board.png \
      --prompt "Where is the cat?" --output why
    ```
    """
    if not image and not video:
        raise CommandError("There is nothing to explain: pass --image or --video.", exit_code=2)
    pictures = [[read_picture(path)] for path in image or []]
    videos = [read_video(path, frames) for path in video or []]
    options = parse_key_values(rule_option or [], "--rule-option")
    make_folder(output)

    from .answering import prepare_question
    from .checkpoint import find_checkpoint, load_checkpoint

    source = find_checkpoint(model)
    checkpoint = load_checkpoint(source, TokenCompressionConfig(), dtype=dtype, device=device)
    with working("Explaining"), quiet_libraries(progress_bars=False):
        from ..relevance import DEFAULT_RULE, faithfulness, relevance

        inputs = prepare_question(checkpoint, [picture for (picture,) in pictures], prompt, videos)
        given = None if answer is None else [_answer_ids(checkpoint, answer)]
        rule = rule or DEFAULT_RULE
        sample = relevance(
            checkpoint.model,
            inputs,
            answer_ids=given,
            max_new_tokens=max_new_tokens,
            rule=rule,
            rule_options=options,
            recursive=recursive,
            return_per_token=True,
        ).samples[0]
        followed = faithfulness(
            checkpoint.model, inputs, [sample.scores], answer_ids=[sample.answer_ids]
        ).samples[0]
        words = [checkpoint.processor.decode(token) for token in sample.answer_ids]
        written = _write_pictures(output, [*pictures, *videos], sample, words)
    written += _write_plot(output / "faithfulness.png", followed)
    summary = {
        "model": model,
        "prompt": prompt,
        "answer": checkpoint.processor.decode(sample.answer_ids).strip(),
        "answer_tokens": words,
        "rule": rule,
        "scores": sample.scores.tolist(),
        "faithfulness": _as_json(followed),
    }
    path = output / "relevance.json"
    path.write_text(json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
    _print_summary(summary, [*written, path])


def _answer_ids(checkpoint: Checkpoint, answer: str) -> Any:
    import torch

    ids = checkpoint.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.long)


def _write_pictures(
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
    curves = {
        "least_first": followed.least_first,
        "most_first": followed.most_first,
        "random": followed.random,
    }
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
    labels = {
        "least_first": "Least relevant\nremoved first",
        "most_first": "Most relevant\nremoved first",
        "random": "Random",
    }
    curves = summary["faithfulness"]
    for name in labels:
        table.add_column(labels[name], justify="right")
    for place, ratio in enumerate(curves["random"]["retention_ratios"]):
        values = (curves[name]["log_probabilities"][place] for name in labels)
        table.add_row(f"{ratio:.0%}", *(f"{round(value, 2) + 0.0:.2f}" for value in values))
    table.add_row("Mean", *(f"{curves[name]['area']:.2f}" for name in labels))
    console.print(table)
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
