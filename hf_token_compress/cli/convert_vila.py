"""`hf-token-compress convert-vila`: a published VILA1.5 checkpoint in this library's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .checkpoint import find_checkpoint
from .console import notices, quiet_libraries, working
from .errors import CommandError, one_sentence_errors


@one_sentence_errors
def convert_vila(
    source: Annotated[
        str, typer.Argument(help="A published VILA1.5: a Hub id or a folder.", metavar="SRC")
    ],
    destination: Annotated[
        Path, typer.Argument(help="Folder to write; it must be new or empty.", metavar="DST")
    ],
) -> None:
    """Write a published VILA1.5 checkpoint as one folder, with its processor.

    The published checkpoints load as they are; a converted one is laid out as every other model.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CommandError(f"{str(destination)!r} is not an empty folder: name a new one.")
    is_local = Path(source).is_dir()
    with (
        working(f"Converting {source}", spinner=is_local),
        quiet_libraries(progress_bars=not is_local),
    ):
        from ..models.vila import VilaForConditionalGeneration, VilaProcessor
        from ..models.vila.original import is_original

        if not is_original(find_checkpoint(source).location):
            raise CommandError(
                f"{source!r} is not in the published layout of VILA1.5: its config.json does not "
                "have the model type llava_llama."
            )
        processor = VilaProcessor.from_pretrained(source)
        model = VilaForConditionalGeneration.from_pretrained(source)
        model.save_pretrained(destination)
        processor.save_pretrained(destination)
    notices().print(f"Wrote {destination}.")
