"""`hf-token-compress families`: the model families that the library is tested with."""

from __future__ import annotations

import json

import typer

from .errors import one_sentence_errors
from .options import JsonFlag


@one_sentence_errors
def families(as_json: JsonFlag = False) -> None:
    """Print the model families that the library is tested with, as a Markdown table."""
    from ..models.verified import VERIFIED

    if as_json:
        found = [{"model_type": name, **own._asdict()} for name, own in VERIFIED.items()]
        typer.echo(json.dumps(found))
        return
    typer.echo("| family | `model_type` | inputs | visual tokens | mappers | Transformers | note |")
    typer.echo("|---|---|---|---|---|---|---|")
    for name, own in sorted(VERIFIED.items(), key=lambda item: item[1].title.lower()):
        cells = (
            own.title,
            f"`{name}`",
            "images, videos" if own.videos else "images",
            own.places,
            "yes" if own.teacher else "no",
            f"{own.since.removesuffix('.0')} or newer",
            own.note,
        )
        typer.echo(f"| {' | '.join(cells)} |")
