"""`hf-token-compress train`: a mapper from what was collected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..training.options import TrainOptions
from .console import counting, notices
from .errors import one_sentence_errors, stoppable
from .options import OutputFolder, takes

if TYPE_CHECKING:
    from ..training.train import Epoch


@one_sentence_errors
@takes(TrainOptions, "options", panel="Training")
def train(
    options: TrainOptions,
    collection: Annotated[
        list[Path],
        typer.Option(help="Folder that collect wrote. May be repeated.", metavar="FOLDER"),
    ],
    output: OutputFolder,
) -> None:
    r"""Train a mapper; the multimodal model itself is not needed.

    Run it again after it was stopped: it continues after its last epoch. `loss.png`, `recall.png`
    and `history.json` in the output folder show the progress. Several collections of one model
    train one mapper together.

    **Examples**

    ```
    hf-token-compress train --collection shards --output mapper
    hf-token-compress train --collection shards --collection more_shards --output mapper
    accelerate launch --module hf_token_compress.cli train --collection shards \
      --output paper_mapper --network conv1d --network-option kernel_size=5
    ```
    """
    from ..training.distributed import process_state
    from ..training.shards import ShardFolder
    from ..training.train import train_mapper

    main = process_state().is_main_process
    shards = [ShardFolder(folder) for folder in collection]
    with (
        stoppable(lambda: _kept(output), shown=main),
        counting("Training", options.epochs, shown=main) as done,
    ):

        def count(epoch: Epoch) -> None:
            if done.done < epoch.number - 1:
                done.earlier(epoch.number - 1 - done.done)
            done(1)

        mapper = train_mapper(shards, output, options, after_epoch=count)
    if not main:
        return
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in mapper.config.metrics.items()
    )
    typer.echo(f"{mapper.parameter_count:,} parameters in {output}: {metrics}")
    _draw_curves(output)


def _kept(output: Path) -> str:
    """What a stopped run leaves."""
    from ..training.train import CHECKPOINT_FILE

    if (output / CHECKPOINT_FILE).is_file():
        return (
            f"The checkpoint in {output} holds all finished epochs: run the same command again to "
            "go on."
        )
    return f"No epoch was finished yet: nothing is kept in {output}."


def _draw_curves(output: Path) -> None:
    from ..training.train import read_history

    history = read_history(output)
    try:
        from ..viz import save_figure, training_curve

        save_figure(training_curve(history, ["loss"]), output / "loss.png")
        save_figure(training_curve(history, ["recall"]), output / "recall.png")
    except ImportError as error:
        notices().print(f"The curves were not drawn: {error}")
