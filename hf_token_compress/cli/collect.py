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
from .console import counting, notices, with_estimate
from .data_options import DATA, DataOptions
from .errors import CommandError, one_sentence_errors, stoppable, wrong_arguments
from .options import Kinds, OutputFolder, listed, takes
from .scene_options import SCENES, SceneOptions, scene_options

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..data.sources import SampleSource
    from ..training.shards import ShardFolder
    from .checkpoint import Checkpoint


@dataclass(frozen=True)
class ComposedOptions:
    """How many composed questions to ask, in place of the user's own."""

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

    def __post_init__(self) -> None:
        check_options(self)


@one_sentence_errors
@takes(ModelOptions, "model_options", required=("model",))
@takes(DataOptions, "data", panel=DATA)
@takes(ComposedOptions, "composed", panel=SCENES)
@takes(SceneOptions, "scenes", panel=SCENES, leave_out=("per_kind", "drawings"), built=False)
@takes(CollectOptions, "given", panel="Collecting", built=False)
def collect(
    model_options: ModelOptions,
    data: DataOptions,
    composed: ComposedOptions,
    scenes: dict[str, Any],
    given: dict[str, Any],
    output: OutputFolder,
    kind: Kinds = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id to record for a model in a folder.")
    ] = None,
) -> None:
    r"""Collect what a mapper may see of prompts and the relevance of their answers, in shards.

    Run it again after it was stopped: it continues where it was. Under `accelerate launch` every
    process takes its share. The modality is image, unless all questions are about videos.

    **Examples**

    ```
    hf-token-compress collect --model tiny-qwen2-vl --scenes 3000 --output shards
    accelerate launch --module hf_token_compress.cli collect \
      --model Qwen/Qwen2-VL-7B-Instruct --data questions.jsonl --output shards
    ```
    """
    with wrong_arguments():
        options = CollectOptions(**given)
    source, modalities = _source(data, composed, scenes, listed(kind), options)
    options = _of_modality(options, modalities, chosen="modality" in given)

    from ..relevance.rules import build_rule
    from ..training.collect import collect as collect_shards
    from ..training.distributed import process_state

    with wrong_arguments():
        build_rule(options.rule, options.rule_options)
    state = process_state()
    with stoppable(lambda: _kept(output), shown=state.is_main_process):
        checkpoint = _load(model_options, state)
        own_share = -(-len(source) // state.num_processes)
        with counting("Collecting", own_share, shown=state.is_main_process) as done:
            estimated = with_estimate(done, len(source), after=2 * options.batch_size)
            collection = collect_shards(
                checkpoint.model,
                checkpoint.processor,
                source,
                output,
                options,
                base_model=base_model or checkpoint.hub_id,
                after_sample=estimated if state.is_main_process else done,
                found_samples=done.earlier,
            )
        if state.is_main_process:
            _print_summary(collection, output)


def _of_modality(
    options: CollectOptions, modalities: Collection[str], *, chosen: bool
) -> CollectOptions:
    """The options, for videos where there is nothing else and the user did not choose."""
    if not chosen and "image" not in modalities:
        options = dataclasses.replace(options, modality="video")
    if options.modality not in modalities:
        raise CommandError(
            f"--modality {options.modality} is that of no sample: leave it out.", exit_code=2
        )
    return options


def _source(
    data: DataOptions,
    composed: ComposedOptions,
    given: Mapping[str, Any],
    kinds: Sequence[str],
    options: CollectOptions,
) -> tuple[SampleSource, Collection[str]]:
    """The samples and their modalities.

    Args:
        data: The user's own data, if it is given.
        composed: How many composed questions to ask otherwise.
        given: The options of composed questions that the user gave.
        kinds: Kinds of composed questions; all if it is empty.
        options: How to collect.

    Raises:
        CommandError: An option has no effect, or the samples cannot be used.
        OSError, ValueError: They cannot be read or composed.
    """
    named = (data.data, data.dataset, composed.scenes, composed.clips)
    if sum(item is not None for item in named) != 1:
        raise CommandError(
            "Name the data by one of --data, --dataset, --scenes and --clips.", exit_code=2
        )
    clips = composed.clips is not None
    chosen = scene_options(given, composed=not data.given, clips=clips, remedy="leave it out")
    if data.given:
        if kinds:
            raise CommandError(
                "--kind is about composed questions, not about your own: leave it out.", exit_code=2
            )
        source = data.source()
        return source, data.check(source, options.metric).modalities

    from ..data.composed import ClipSource, SceneSource

    with wrong_arguments():
        if composed.clips is not None:
            return ClipSource(composed.clips, kinds=kinds, **chosen.layout(clips=True)), ["video"]
        assert composed.scenes is not None  # one of the four is given
        return SceneSource(composed.scenes, kinds=kinds, **chosen.layout(clips=False)), ["image"]


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
