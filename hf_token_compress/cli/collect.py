"""`hf-token-compress collect`: what mappers learn from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import TokenCompressionConfig
from ..options import check_options
from ..training.options import CollectOptions
from .checkpoint import ModelOptions, find_checkpoint, load_checkpoint
from .console import counting, notices
from .errors import CommandError, one_sentence_errors, stoppable, wrong_arguments
from .options import Kinds, OutputFolder, listed, takes
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..data.sources import SampleSource
    from ..training.shards import ShardFolder
    from .checkpoint import Checkpoint


@dataclass(frozen=True)
class DataOptions:
    """Where the questions come from: one of the first four."""

    data: Path | None = field(
        default=None,
        metadata={
            "help": (
                'A file with one JSON object per line: "image" (a path, or several) or "video", '
                '"question", and optionally "answer".'
            ),
            "metavar": "FILE",
        },
    )
    dataset: str | None = field(
        default=None, metadata={"help": "A dataset: Hub id or folder.", "metavar": "NAME"}
    )
    scenes: int | None = field(
        default=None,
        metadata={
            "help": "Number of questions about composed images, which the tiny models know.",
            "interval": "[1, inf)",
        },
    )
    clips: int | None = field(
        default=None,
        metadata={
            "help": (
                "Number of questions about composed clips, for a mapper for videos. A clip has 4 "
                "scenes, or as many as --clip-frames says."
            ),
            "interval": "[1, inf)",
        },
    )
    split: str | None = field(
        default=None, metadata={"help": "Split of the dataset. By default train."}
    )
    column: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "A column of the dataset that has another name, such as question=query.",
            "metavar": "KEY=NAME",
        },
    )

    def __post_init__(self) -> None:
        check_options(self)
        named = (self.data, self.dataset, self.scenes, self.clips)
        if sum(item is not None for item in named) != 1:
            raise ValueError("Name the data by one of --data, --dataset, --scenes and --clips.")
        if self.dataset is None and (self.split is not None or self.column):
            option = "--column" if self.column else "--split"
            raise ValueError(f"{option} is about a dataset: give --dataset, or leave it out.")

    def source(self, given: Mapping[str, Any], kinds: Sequence[str]) -> SampleSource:
        """The samples, where `given` are the options of composed scenes that the user gave.

        Raises:
            CommandError: An option has no effect.
            OSError, ValueError: They cannot be read or composed.
        """
        clips, own = self.clips is not None, self.scenes is None and self.clips is None
        chosen = scene_options(given, composed=not own, clips=clips, remedy="leave it out")
        layout = chosen.layout(clips=clips)
        if own and kinds:
            raise CommandError(
                "--kind is about composed questions, not about your own: leave it out.", exit_code=2
            )

        from ..data.composed import ClipSource, SceneSource
        from ..data.sources import HubDataset, JsonLines

        if self.data is not None:
            return JsonLines(self.data)
        if self.dataset is not None:
            return HubDataset(self.dataset, self.split or "train", self.column)
        with wrong_arguments():
            if self.scenes is not None:
                return SceneSource(self.scenes, kinds=kinds, **layout)
            assert self.clips is not None  # one of the four is given
            return ClipSource(self.clips, kinds=kinds, **layout)


@one_sentence_errors
@takes(ModelOptions, "model_options", required=("model",))
@takes(DataOptions, "data", panel="Data: one of --data, --dataset, --scenes and --clips")
@takes(SceneOptions, "scenes", panel=SCENES, leave_out=("per_kind", "drawings"), built=False)
@takes(CollectOptions, "given", panel="Collecting", built=False)
def collect(
    model_options: ModelOptions,
    data: DataOptions,
    scenes: dict[str, Any],
    given: dict[str, Any],
    output: OutputFolder,
    kind: Kinds = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id to record for a model in a folder.")
    ] = None,
) -> None:
    r"""Collect a model's layer-0 attention and the relevance of its answers, in shards.

    Run it again after it was stopped: it continues where it was. Under `accelerate launch` every
    process takes its share. The modality is video with --clips, else image.

    **Examples**

    ```
    hf-token-compress collect --model tiny-qwen2-vl --scenes 3000 --output shards
    hf-token-compress collect --model tiny-llava-onevision --clips 3000 --output clip_shards
    accelerate launch --module hf_token_compress.cli collect \
      --model Qwen/Qwen2-VL-7B-Instruct --data questions.jsonl --output shards
    ```
    """
    modality = "image" if data.clips is None else "video"
    options = CollectOptions(**{"modality": modality, **given})
    source = data.source(scenes, listed(kind))

    from ..relevance.rules import build_rule
    from ..training.collect import collect as collect_shards
    from ..training.distributed import process_state

    # Fail before a large model is loaded.
    with wrong_arguments():
        build_rule(options.rule, options.rule_options)
    state = process_state()
    with stoppable(lambda: _kept(output), shown=state.is_main_process):
        checkpoint = _load(model_options, state)
        known_as = base_model or (None if Path(checkpoint.name).exists() else checkpoint.name)
        # Each process counts its own share of the shards.
        share = -(-len(source) // state.num_processes)
        with counting("Collecting", share, shown=state.is_main_process) as done:
            collection = collect_shards(
                checkpoint.model,
                checkpoint.processor,
                source,
                output,
                options,
                base_model=known_as,
                after_sample=done,
                found_samples=done.earlier,
            )
    if state.is_main_process:
        _print_summary(collection, output)


def _kept(output: Path) -> str:
    """What a stopped run leaves."""
    count = len(list(output.glob("shard-*.safetensors")))
    if count == 0:
        return f"No shard was complete yet: nothing is kept in {output}."
    shards = "1 complete shard" if count == 1 else f"{count} complete shards"
    return f"{shards} in {output} will be used: run the same command again to go on."


def _load(options: ModelOptions, state: Any) -> Checkpoint:
    """The model, on this process's own device."""
    if options.device is None and state.num_processes > 1:
        options = dataclasses.replace(options, device=str(state.device))
    return load_checkpoint(find_checkpoint(options), TokenCompressionConfig())


def _print_summary(collection: ShardFolder | None, output: Path) -> None:
    if collection is None:
        notices().print(
            "This machine's shards are done: copy the shards of the other machines into this "
            "folder."
        )
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in collection.index["skipped"].items())
    skipped = f"; skipped: {reasons}" if reasons else ""
    typer.echo(f"{len(collection)} samples in {output}{skipped}")
