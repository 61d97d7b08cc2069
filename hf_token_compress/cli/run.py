"""`hf-token-compress run`: one question to any supported checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..asking import Answer, answer, prepare_question
from ..config import TokenCompressionConfig
from .checkpoint import Checkpoint, ModelOptions, find_checkpoint, load_checkpoint
from .console import notices, results, working
from .errors import one_sentence_errors, wrong_arguments
from .options import JsonFlag, OutputFile, takes
from .outputs import check_output, numbered_paths, write_json
from .question_options import QuestionOptions

if TYPE_CHECKING:
    from PIL import Image


@one_sentence_errors
@takes(QuestionOptions, "question")
@takes(ModelOptions, "model_options", required=("model",))
@takes(TokenCompressionConfig, "changes", panel="Compression", built=False)
def run(
    question: QuestionOptions,
    model_options: ModelOptions,
    changes: dict[str, Any],
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the image with the kept tokens lit. Further images go to FILE-2, … A video "
            "becomes a sheet of its frames, or an animation if FILE ends in .gif.",
            metavar="FILE",
        ),
    ] = None,
    output: OutputFile = None,
    as_json: JsonFlag = False,
) -> None:
    r"""Ask any supported model a question about images or videos, with fewer visual tokens.

    Other compression options are those saved with the model. Tiny models bring a mapper.

    **Examples**

    ```
    hf-token-compress run --model tiny-qwen2-vl --image board.png \
      --prompt "Where is the cat?" --overlay kept.png
    hf-token-compress run --model Qwen/Qwen2-VL-2B-Instruct --image a.jpg \
      --image b.jpg --prompt "What changed?" --retention-ratio 0.1 --json
    hf-token-compress run --model llava-hf/llava-onevision-qwen2-0.5b-ov-hf \
      --video clip.mp4 --frames 16 --prompt "What happens?" --overlay kept.gif
    ```
    """
    check_output(output)
    images = question.read_images()
    count = len(question.image) + len(question.video)
    overlay_paths = [] if overlay is None else numbered_paths(overlay, count)

    source = find_checkpoint(model_options)
    with wrong_arguments():
        compression = source.merged_compression(changes, question.modalities)
    checkpoint = load_checkpoint(source, compression)
    with working("Answering"):
        videos = question.read_videos(checkpoint.processor)
        inputs = prepare_question(checkpoint, images, question.prompt, videos)
        found = answer(checkpoint, inputs, max_new_tokens=question.max_new_tokens)
    visuals: list[Image.Image | list[Image.Image]] = [*images, *videos]
    for number, path in enumerate(overlay_paths):
        _write_overlay(path, visuals[number], found, number)
    summary = {
        **_settings(checkpoint, question, compression),
        **_measurements(found),
        "overlays": [str(path) for path in overlay_paths],
    }
    write_json(summary, output)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print_summary(summary)


def _settings(
    checkpoint: Checkpoint, question: QuestionOptions, compression: TokenCompressionConfig
) -> dict[str, Any]:
    return {
        "model": checkpoint.name,
        "images": list(question.image),
        "videos": list(question.video),
        "prompt": question.prompt,
        "scorer": compression.scorer_name,
        "mapper": compression.mapper,
        "token_compression": {**compression, "scorer": compression.scorer_name},
        "device": str(checkpoint.model.device),
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
    }


def _measurements(found: Answer) -> dict[str, Any]:
    report = found.report
    assert report is not None  # the call was compressed
    measured = report.to_dict()
    (sample,) = measured["samples"]
    before_generation = report.vision_ms + report.scoring_ms + report.rewriting_ms
    return {
        "answer": found.text,
        **{name: value for name, value in sample.items() if "_tokens_" in name},
        "new_tokens": found.new_tokens,
        **{name: value for name, value in measured.items() if name.endswith("_ms")},
        "generation_ms": round(found.milliseconds - before_generation, 3),
    }


def _write_overlay(
    path: Path, visual: Image.Image | list[Image.Image], found: Answer, number: int
) -> None:
    from ..viz import frame_overlays, frame_sheet, overlay, save_animation

    assert found.report is not None  # the call was compressed
    sample = found.report.samples[0]
    if not isinstance(visual, list):
        overlay(visual, sample, number).save(path)
    elif path.suffix.lower() == ".gif":
        save_animation(path, frame_overlays(visual, sample, number))
    else:
        frame_sheet(visual, sample, number).save(path)


def _print_summary(summary: dict[str, Any]) -> None:
    console = results()
    console.print(Text(summary["answer"] or "(an empty answer)", style="bold"))
    table = Table.grid(padding=(0, 2))
    scorer, mapper = summary["scorer"], summary["mapper"]
    table.add_row("Scorer", Text(scorer if mapper is None else f"{scorer} ({mapper})"))
    for label, name in (("Visual tokens", "visual_tokens"), ("Prompt tokens", "prompt_tokens")):
        before, after = summary[f"{name}_before"], summary[f"{name}_after"]
        table.add_row(label, f"{before} → {after}  ({after / before:.0%})")
    for part in ("vision", "scoring", "rewriting", "generation"):
        table.add_row(part.capitalize(), f"{summary[f'{part}_ms']:.1f} ms")
    table.add_row("New tokens", str(summary["new_tokens"]))
    for path in summary["overlays"]:
        table.add_row("Kept tokens", Text(path))
    console.print(table)
    notices().print("Times are of one call, without a warm-up.", style="dim")
