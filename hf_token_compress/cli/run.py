"""`hf-token-compress run`: one question to any supported checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from ..data.media import check_video, read_image, read_video
from .console import notices, quiet_libraries, results, working
from .errors import CommandError, one_sentence_errors
from .options import (
    COMPRESSION_PANEL,
    DEFAULT_FRAMES,
    DeviceOption,
    DtypeOption,
    FramesOption,
    MapperOption,
    ModelOption,
    ScorerOption,
    ScorerOptionsOption,
    VideoOption,
    parse_scorer_options,
)
from .outputs import numbered_paths

if TYPE_CHECKING:
    from typing import TypeAlias

    from PIL import Image

    from .answering import Answer

    Visual: TypeAlias = Image.Image | list[Image.Image]

DEFAULT_RETENTION_RATIO = 0.25


@one_sentence_errors
def run(
    model: ModelOption,
    prompt: Annotated[str, typer.Option(help="The question.", metavar="TEXT")],
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture; may be repeated.", metavar="FILE")
    ] = None,
    video: VideoOption = None,
    frames: FramesOption = DEFAULT_FRAMES,
    retention_ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the visual tokens to keep, in (0, 1]; by default the one saved with "
            f"the model, else {DEFAULT_RETENTION_RATIO}.",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    scorer: ScorerOption = None,
    scorer_option: ScorerOptionsOption = None,
    mapper: MapperOption = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Keep the fewest tokens whose scores sum to this share, in (0, 1].",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    min_visual_tokens: Annotated[
        int | None,
        typer.Option(
            help="Leave prompts with fewer visual tokens alone.",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    max_visual_tokens: Annotated[
        int | None,
        typer.Option(help="Most visual tokens to keep.", rich_help_panel=COMPRESSION_PANEL),
    ] = None,
    min_tokens_per_visual: Annotated[
        int | None,
        typer.Option(
            help="Visual tokens that every picture keeps.", rich_help_panel=COMPRESSION_PANEL
        ),
    ] = None,
    min_tokens_per_frame: Annotated[
        int | None,
        typer.Option(
            help="Visual tokens that every frame of a video keeps.",
            rich_help_panel=COMPRESSION_PANEL,
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 64,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the picture with the kept tokens lit; further pictures go to FILE-2, … "
            "A video becomes a sheet of its frames, or an animation where FILE ends in .gif.",
            metavar="FILE",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    r"""Ask any supported model a question about images or videos, with fewer visual tokens.

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
    options = {
        "retention_ratio": retention_ratio,
        "scorer": scorer,
        "scorer_options": parse_scorer_options(scorer_option or []) or None,
        "mapper": mapper,
        "top_p": top_p,
        "min_visual_tokens": min_visual_tokens,
        "max_visual_tokens": max_visual_tokens,
        "min_tokens_per_visual": min_tokens_per_visual,
        "min_tokens_per_frame": min_tokens_per_frame,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if not (image or video):
        raise CommandError("There is nothing to look at: give --image or --video.", exit_code=2)
    images, video_paths = [read_image(path) for path in image or []], video or []
    for path in video_paths:
        check_video(path)
    count = len(images) + len(video_paths)
    overlay_paths = [] if overlay is None else numbered_paths(overlay, count)

    from .answering import answer, prepare_question
    from .checkpoint import find_checkpoint, load_checkpoint

    source = find_checkpoint(model)
    compression = _merged_settings(source.saved_compression, given)
    checkpoint = load_checkpoint(source, compression, dtype=dtype, device=device)
    with working("Answering"), quiet_libraries(progress_bars=False):
        videos = [read_video(path, checkpoint.processor, frames) for path in video_paths]
        inputs = prepare_question(checkpoint, images, prompt, videos)
        found = answer(checkpoint, inputs, max_new_tokens=max_new_tokens)
    visuals: list[Visual] = [*images, *videos]
    for number, path in enumerate(overlay_paths):
        _write_overlay(path, visuals[number], found, number)
    summary = {
        "model": model,
        "images": [str(path) for path in image or []],
        "videos": [str(path) for path in video_paths],
        "prompt": prompt,
        **_measurements(found, inputs["input_ids"].shape[1]),
        "overlays": [str(path) for path in overlay_paths],
        "device": str(checkpoint.model.device),
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "token_compression": compression.to_dict(),
    }
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print_summary(summary)


def _merged_settings(
    saved: TokenCompressionConfig | None, given: dict[str, Any]
) -> TokenCompressionConfig:
    """The setting saved with the model, overridden by what the command line gives."""
    base = saved or TokenCompressionConfig(retention_ratio=DEFAULT_RETENTION_RATIO)
    if "scorer" in given or "mapper" in given:
        # Another way of scoring replaces the saved one whole: its options and mapper do not fit.
        base = dataclasses.replace(
            base, scorer=None, scorer_options={}, mapper=None, mapper_revision=None
        )
    return dataclasses.replace(base, **given)


def _measurements(found: Answer, prompt_tokens: int) -> dict[str, Any]:
    report = found.report
    assert report is not None  # a prompt with images was compressed
    sample = report.samples[0]
    before_generation = report.vision_ms + report.scoring_ms + report.rewriting_ms
    return {
        "answer": found.text,
        "visual_tokens_before": sample.visual_tokens_before,
        "visual_tokens_after": sample.visual_tokens_after,
        "prompt_tokens_before": prompt_tokens,
        "prompt_tokens_after": len(sample.kept_indices),
        "new_tokens": found.new_tokens,
        "vision_ms": round(report.vision_ms, 3),
        "scoring_ms": round(report.scoring_ms, 3),
        "rewriting_ms": round(report.rewriting_ms, 3),
        "generation_ms": round(found.milliseconds - before_generation, 3),
    }


def _write_overlay(path: Path, visual: Visual, found: Answer, number: int) -> None:
    from ..viz import frame_overlays, frame_sheet, overlay, save_animation

    assert found.report is not None
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
