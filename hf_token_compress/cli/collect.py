"""`hf-token-compress collect`: what mappers learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import counting, notices, quiet_libraries
from .errors import CommandError, one_sentence_errors, wrong_arguments
from .options import (
    ClipHoldOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    listed,
    parse_key_values,
)

if TYPE_CHECKING:
    from ..data.sources import SampleSource

_DATA_PANEL = "Data: one of these"
_RELEVANCE_PANEL = "Relevance"


@one_sentence_errors
def collect(
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="Folder for the shards.", metavar="FOLDER")],
    data: Annotated[
        Path | None,
        typer.Option(
            help='A file with one JSON object a line: "image" (a path, or several) or "video", '
            '"question", and optionally "answer".',
            metavar="FILE",
            rich_help_panel=_DATA_PANEL,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A dataset: Hub id or folder.", metavar="NAME", rich_help_panel=_DATA_PANEL
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="That many questions about composed pictures, which the tiny models know.",
            rich_help_panel=_DATA_PANEL,
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="That many questions about composed clips, for a mapper for videos.",
            rich_help_panel=_DATA_PANEL,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a column of the dataset has another name, such as question=query; may be "
            "repeated.",
            metavar="KEY=NAME",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", "--kinds", help="Kinds of scene or clip questions.", metavar="KINDS"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Number of the first scene or clip.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a scene.")] = 4,
    columns: Annotated[int, typer.Option(min=1, help="Columns of a scene.")] = 4,
    clip_frames: Annotated[int, typer.Option(min=1, help="Boards of a clip.")] = 4,
    clip_hold: ClipHoldOption = 1,
    modality: Annotated[
        str | None, typer.Option(help="image or video. [default: image; video for --clips]")
    ] = None,
    match: Annotated[
        str, typer.Option(help="Right answers: exact (but for case and a full stop) or contains.")
    ] = "exact",
    rule: Annotated[
        str | None,
        typer.Option(help="Rule of relevance.", metavar="NAME", rich_help_panel=_RELEVANCE_PANEL),
    ] = None,
    rule_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the rule; may be repeated.",
            metavar="KEY=VALUE",
            rich_help_panel=_RELEVANCE_PANEL,
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            help="per_token (the mean over the answer's tokens) or sum (one backward pass for "
            "all).",
            rich_help_panel=_RELEVANCE_PANEL,
        ),
    ] = "per_token",
    recursive: Annotated[
        bool,
        typer.Option(
            help="Explain again after leaving the least relevant tokens out.",
            rich_help_panel=_RELEVANCE_PANEL,
        ),
    ] = False,
    scoring_depth: Annotated[
        int, typer.Option(min=0, help="Decoder layers before the one whose attention is taken.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a batch.")] = 16,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt, in tokens; longer ones are skipped.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="Hub id of the model, for the record, where it is a folder here."),
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
) -> None:
    r"""Collect a model's layer-0 attention and the relevance of its answers, in shards.

    Run it again after it was stopped: it goes on where it was. Under `accelerate launch` every
    process takes its share.

    **Examples**

    ```
    hf-token-compress collect --model tiny-qwen2-vl --scenes 3000 --output shards
    hf-token-compress collect --model tiny-llava-onevision --clips 3000 --output clip_shards
    accelerate launch --module hf_token_compress.cli collect \
      --model Qwen/Qwen2-VL-7B-Instruct --data questions.jsonl --output shards
    ```
    """
    if sum(item is not None for item in (data, dataset, scenes, clips)) != 1:
        raise CommandError(
            "Name the data by one of --data, --dataset, --scenes and --clips.", exit_code=2
        )
    if modality is None:
        modality = "image" if clips is None else "video"
    if modality not in ("image", "video"):
        raise CommandError(f"--modality is image or video, not {modality!r}.", exit_code=2)
    if match not in ("exact", "contains"):
        raise CommandError(f"--match is exact or contains, not {match!r}.", exit_code=2)

    from ..config import TokenCompressionConfig
    from ..data.composed import ClipSource, SceneSource
    from ..data.sources import HubDataset, JsonLines
    from ..relevance import DEFAULT_RULE
    from ..relevance.rules import build_rule
    from ..training.collect import CollectOptions
    from ..training.collect import collect as collect_shards
    from ..training.distributed import process_state
    from .checkpoint import find_checkpoint, load_checkpoint

    board: dict[str, Any] = {
        "kinds": listed(kind) or None,
        "seed": seed,
        "rows": rows,
        "columns": columns,
    }
    given: dict[str, Any] = {
        "modality": modality,
        "match": match,
        "rule": rule or DEFAULT_RULE,
        "rule_options": parse_key_values(rule_option or [], "--rule-option"),
        "targets": targets,
        "recursive": recursive,
        "scoring_depth": scoring_depth,
        "batch_size": batch_size,
        "shard_size": shard_size,
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": max_prompt_tokens,
    }
    with wrong_arguments():
        options = CollectOptions(**given)
        # Before a large model is loaded in vain.
        build_rule(options.rule, options.rule_options)
    source: SampleSource
    if data is not None:
        source = JsonLines(data)
    elif dataset is not None:
        source = HubDataset(dataset, split, parse_key_values(column or [], "--column"))
    else:
        with wrong_arguments():
            if clips is not None:
                source = ClipSource(clips, frames=clip_frames, frames_per_scene=clip_hold, **board)
            else:
                assert scenes is not None
                source = SceneSource(scenes, **board)
    state = process_state()
    if device is None and state.num_processes > 1:
        device = str(state.device)
    checkpoint = load_checkpoint(
        find_checkpoint(model), TokenCompressionConfig(), dtype=dtype, device=device
    )
    # Each process counts its own share of the shards.
    share = -(-len(source) // state.num_processes)
    with (
        quiet_libraries(progress_bars=False),
        counting("Collecting", share, shown=state.is_main_process) as done,
    ):
        collection = collect_shards(
            checkpoint.model,
            checkpoint.processor,
            source,
            output,
            options,
            base_model=base_model or (model if source_is_named(model) else None),
            after_sample=done,
        )
    if not state.is_main_process:
        return
    if collection is None:
        notices().print("This machine's shards are done; copy those of the others to them.")
        return
    skipped = collection.index["skipped"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    typer.echo(
        f"{len(collection)} samples in {output}" + (f"; skipped: {reasons}" if reasons else "")
    )


def source_is_named(model: str) -> bool:
    """Whether the user called the model by a name rather than by a folder."""
    return not Path(model).exists()
