"""`hf-token-compress push`: a mapper to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import notices
from .errors import CommandError, one_sentence_errors


@one_sentence_errors
def push(
    mapper: Annotated[Path, typer.Option(help="Folder that train wrote.", metavar="FOLDER")],
    repo: Annotated[str, typer.Option(help="Hub id to push to.", metavar="USER/NAME")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Branch to push to.")] = None,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Upload token mapper",
) -> None:
    """Upload a mapper and its model card to the Hub.

    **Example**

    ```
    hf-token-compress push --mapper mapper --repo me/qwen2-vl-7b-token-mapper
    ```
    """
    if not mapper.is_dir():
        raise CommandError(f"There is no folder {str(mapper)!r}.", exit_code=2)

    from huggingface_hub import errors

    from ..mapper import load_mappers

    loaded = load_mappers(str(mapper))
    with notices().status(f"Pushing {mapper}"):
        try:
            address = loaded.push_to_hub(
                repo, private=private or None, branch=branch, commit_message=message
            )
        except errors.RevisionNotFoundError as error:
            raise CommandError(
                f"{repo!r} has no branch {branch!r} on the Hub: create it there, or push without "
                "--branch."
            ) from error
        except errors.HfHubHTTPError as error:
            raise CommandError(
                f"The Hub refuses the mapper as {repo!r}: log in with `hf auth login` to an "
                f"account that may write there ({type(error).__name__})."
            ) from error
    typer.echo(address)
