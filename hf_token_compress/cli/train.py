"""`hf-token-compress train`: a mapper from what was collected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import counting, notices
from .errors import CommandError, one_sentence_errors
from .options import parse_key_values

_FEW_PANEL = "For few samples"


@one_sentence_errors
def train(
    collection: Annotated[
        list[Path],
        typer.Option(help="Folder that collect wrote; may be repeated.", metavar="FOLDER"),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the mapper.", metavar="FOLDER")],
    network: Annotated[
        str, typer.Option(help="grid, or conv1d (the paper's).", metavar="NAME")
    ] = "grid",
    network_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the network, such as channels=32; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    masked_share: Annotated[
        float, typer.Option(help="Share of the least relevant tokens that the label hides.")
    ] = 0.5,
    temperature: Annotated[float, typer.Option(help="Of the label; below 1 sharpens.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the data.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without progress before it stops.")
    ] = 20,
    keep_best: Annotated[
        bool,
        typer.Option(help="Keep the epoch with the lowest held-out loss, not simply the last."),
    ] = True,
    weight_decay: Annotated[
        float,
        typer.Option(min=0.0, help="Of AdamW.", rich_help_panel=_FEW_PANEL),
    ] = 0.0,
    mirror: Annotated[
        bool, typer.Option(help="Mirror what is seen, by chance.", rich_help_panel=_FEW_PANEL)
    ] = False,
    head_dropout: Annotated[
        float,
        typer.Option(min=0.0, help="Chance to leave out a head.", rich_help_panel=_FEW_PANEL),
    ] = 0.0,
    noise: Annotated[
        float,
        typer.Option(min=0.0, help="Disturbance of the logarithms.", rich_help_panel=_FEW_PANEL),
    ] = 0.0,
    held_out: Annotated[float, typer.Option(help="Share of the samples that only measure.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of weights, split and order.")] = 0,
) -> None:
    r"""Train a mapper; the multimodal model itself is not needed.

    Run it again after it was stopped: it goes on after its last epoch. `loss.png`, `recall.png` and
    `history.json` in the output folder show how it went. Several collections of one model train one
    mapper together.

    **Examples**

    ```
    hf-token-compress train --collection shards --output mapper
    hf-token-compress train --collection shards --collection more_shards --output mapper
    accelerate launch --module hf_token_compress.cli train --collection shards \
      --output paper_mapper --network conv1d --network-option kernel_size=5
    ```
    """
    if not 0.0 < held_out < 1.0:
        raise CommandError(f"--held-out must be in (0, 1), but it is {held_out}.", exit_code=2)

    from ..training.distributed import process_state
    from ..training.shards import ShardFolder
    from ..training.train import Epoch, TrainOptions, read_history, train_mapper

    options: dict[str, Any] = {
        "network": network,
        "network_options": parse_key_values(network_option or [], "--network-option"),
        "masked_share": masked_share,
        "temperature": temperature,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "held_out": held_out,
        "keep_best": keep_best,
        "weight_decay": weight_decay,
        "mirror": mirror,
        "head_dropout": head_dropout,
        "noise": noise,
        "seed": seed,
    }
    main = process_state().is_main_process
    with counting("Training", epochs, shown=main) as done:
        mapper = train_mapper(
            [ShardFolder(folder) for folder in collection],
            output,
            TrainOptions(**options),
            after_epoch=lambda epoch: done(1),
        )
    if not main:
        return
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in mapper.config.metrics.items()
    )
    typer.echo(f"{mapper.parameter_count:,} parameters in {output}: {metrics}")
    history: list[Epoch] = read_history(output)
    try:
        from ..viz import save_figure, training_curve

        save_figure(training_curve(history, ["loss"]), output / "loss.png")
        save_figure(training_curve(history, ["recall"]), output / "recall.png")
    except ImportError as error:
        notices().print(f"No pictures of the training: {error}")
