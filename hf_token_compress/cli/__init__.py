"""The command line `hf-token-compress`: one module per command.

Modules of commands import torch and Transformers only inside their functions, so that help and
wrong arguments answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from .benchmark import benchmark
from .browser import app as browser_app
from .collect import collect
from .demo import demo
from .env import env
from .evaluate import evaluate
from .explain import explain
from .families import families
from .push import push
from .recommend import recommend
from .run import run
from .train import train

app = typer.Typer(
    name="hf-token-compress",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    *(demo, browser_app, run, evaluate, recommend, benchmark, explain),
    *(collect, train, push, families, env),
)
for command in _COMMANDS:
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-token-compress {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Drop the visual tokens that do not matter for the question, before the LLM runs.

    Begin with `hf-token-compress demo`: it needs no download and no GPU.
    """
