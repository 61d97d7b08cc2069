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
    frames: Annotated[int, typer.Option(min=1, help=FRAMES["help"])] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    write_space: Annotated[
        Path | None,
        typer.Option(
            help="Do not start it: write the files of a Hub Space that runs it.", metavar="FOLDER"
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
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if find_spec("gradio") is None:
        raise CommandError(
            "The demo in the browser needs Gradio, which is not installed: pip install "
            "'hf-token-compress[app]'."
        )
    source = find_checkpoint(model_options)
    with wrong_arguments():
        settings = _settings(source, changes)
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
    from ..app.page import STYLE, THEME

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
            show_error=True,
            ssr_mode=False,
            footer_links=[],
        )
        results().print(Text(f"Open {public or address} in a browser; Ctrl+C stops it."))
        page.block_thread()


def _prepared_page(comparer: Comparer, folder: str) -> Any:
    """The page with examples in a folder, after a question of each modality."""
    from ..app.examples import write_examples
    from ..app.page import make_page

    examples = {kind: write_examples(Path(folder), kind) for kind in comparer.settings}
    for kind, (first, *_) in examples.items():
        comparer(first.question, first.files, modality=kind, changes={})
    return make_page(comparer, examples)


def _settings(
    source: CheckpointSource, changes: Mapping[str, Any]
) -> dict[Modality, TokenCompressionConfig]:
    """The setting that each modality starts from; only images for models that know no videos."""
    from ..mapper import load_mappers
    from ..models.verified import VERIFIED

    own, family = own_mapper(source.options.model), VERIFIED.get(source.settings["model_type"])
    if own is not None:
        videos = "video" in load_mappers(own).mappers
    else:
        videos = family is None or family.videos
    kinds: tuple[Modality, ...] = ("image", "video") if videos else ("image",)
    return {kind: source.merged_compression(changes, (kind,)) for kind in kinds}
