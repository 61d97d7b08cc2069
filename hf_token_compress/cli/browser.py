"""`hf-token-compress app`: the demo in the browser."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..config import Modality, TokenCompressionConfig
from ..options import check_options
from ..tiny import own_mapper
from .checkpoint import CheckpointSource, ModelOptions, find_checkpoint, load_checkpoint
from .console import results, working
from .errors import CommandError, one_sentence_errors, wrong_arguments
from .options import FRAMES, takes

if TYPE_CHECKING:
    from ..app.comparing import Comparer

_FRAMES = 8
_MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class AppModelOptions(ModelOptions):
    """As other commands take it, but by default a model that knows videos too."""

    model: str = field(default="tiny-qwen2-vl-video", metadata=fields(ModelOptions)[0].metadata)


@dataclass(frozen=True)
class ServerOptions:
    """Where the page can be reached."""

    host: str | None = field(
        default=None,
        metadata={
            "help": "Address to listen on; 0.0.0.0 for other machines too. By default "
            "$GRADIO_SERVER_NAME, or 127.0.0.1.",
            "metavar": "HOST",
        },
    )
    port: int | None = field(
        default=None,
        metadata={
            "help": "Port. By default $GRADIO_SERVER_PORT, or the first free one from 7860.",
            "interval": "[1, 65535]",
        },
    )
    share: bool = field(
        default=False,
        metadata={"help": "Make a public address for it, through Gradio's servers."},
    )

    def __post_init__(self) -> None:
        check_options(self)


@one_sentence_errors
@takes(AppModelOptions, "model_options")
@takes(TokenCompressionConfig, "changes", panel="Compression", built=False)
@takes(ServerOptions, "server", panel="Server")
def app(
    model_options: AppModelOptions,
    changes: dict[str, Any],
    server: ServerOptions,
    frames: Annotated[int, typer.Option(min=1, help=FRAMES["help"])] = _FRAMES,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, in tokens.")
    ] = _MAX_NEW_TOKENS,
    write_space: Annotated[
        Path | None,
        typer.Option(
            help="Do not start it: write the files of a Hub Space that runs it. Of the other "
            "options, only --model is allowed.",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Ask a model in the browser, with all and with fewer visual tokens side by side.

    Needs Gradio: `pip install "hf-token-compress[app]"`. Without --share nothing leaves this
    machine.

    **Examples**

    ```
    hf-token-compress app
    hf-token-compress app --model Qwen/Qwen2.5-VL-3B-Instruct --port 8080
    hf-token-compress app --write-space my_space
    ```
    """
    if write_space is not None:
        limits = (frames, max_new_tokens) != (_FRAMES, _MAX_NEW_TOKENS)
        _check_space(model_options, bool(changes) or limits or server != ServerOptions())
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if find_spec("gradio") is None:
        raise CommandError(
            "The demo in the browser needs Gradio, which is not installed: pip install "
            "'hf-token-compress[app]'."
        )
    source = find_checkpoint(model_options)
    with wrong_arguments():
        settings = modality_settings(source, changes)
    if write_space is None:
        _serve(source, settings, server, frames, max_new_tokens)
        return
    from ..app.space import write_space_files

    for path in write_space_files(write_space, model_options.model):
        results().print(Text(str(path)), soft_wrap=True)


def _serve(
    source: CheckpointSource,
    settings: dict[Modality, TokenCompressionConfig],
    server: ServerOptions,
    frames: int,
    max_new_tokens: int,
) -> None:
    """Show the page until Ctrl+C."""
    from ..app.comparing import Comparer
    from ..app.page import MAX_FILE_SIZE, STYLE, THEME

    checkpoint = load_checkpoint(source, settings["image"])
    with TemporaryDirectory() as folder:
        with working("Warming up"):
            page = _prepared_page(Comparer(checkpoint, settings, frames, max_new_tokens), folder)
        _, address, public = page.launch(
            server_name=server.host,
            server_port=server.port,
            share=server.share,
            theme=THEME,
            css=STYLE,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_FILE_SIZE,
            show_error=True,
            ssr_mode=False,
            footer_links=[],
        )
        results().print(Text(f"Open {public or address} in a browser; Ctrl+C stops it."))
        page.block_thread()


def _prepared_page(comparer: Comparer, folder: str) -> Any:
    """The page with examples in a folder, after a question of each modality."""
    from ..app.examples import write_examples
    from ..app.knowledge import is_embedded
    from ..app.page import make_page

    examples = {kind: write_examples(Path(folder), kind) for kind in comparer.settings}
    for kind, (first, *_) in examples.items():
        # As the page does: relevance may need more memory than the user's own model leaves.
        explained = is_embedded(comparer.checkpoint.name)
        comparer(first.question, first.files, modality=kind, changes={}, explained=explained)
    return make_page(comparer, examples)


def _check_space(model_options: AppModelOptions, other_options: bool) -> None:
    """Refuse what a Space would not have.

    Raises:
        CommandError: There are options besides the model, or the model is a local folder.
    """
    model = model_options.model
    if other_options or model_options != AppModelOptions(model):
        raise CommandError(
            "--write-space takes only --model: add other options to app.py of the Space.",
            exit_code=2,
        )
    if Path(model).is_dir():
        raise CommandError(
            f"A Space cannot read the folder {model!r} of this machine: push the model to the Hub, "
            "and name it by its id.",
            exit_code=2,
        )


def modality_settings(
    source: CheckpointSource, changes: Mapping[str, Any]
) -> dict[Modality, TokenCompressionConfig]:
    """The setting that each modality starts from; without videos where none are known to work.

    Raises:
        TypeError, ValueError: As `CheckpointSource.merged_compression`.
    """
    from ..mapper import load_mappers
    from ..models.verified import VERIFIED

    own, family = own_mapper(source.options.model), VERIFIED.get(source.settings["model_type"])
    if own is not None:
        videos = "video" in load_mappers(own).mappers
    else:
        videos = family is not None and family.videos
    kinds: tuple[Modality, ...] = ("image", "video") if videos else ("image",)
    return {kind: source.merged_compression(changes, (kind,)) for kind in kinds}
