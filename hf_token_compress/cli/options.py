"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import CommandError

COMPRESSION_PANEL = "Compression"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="tiny-qwen2-vl, tiny-qwen2-vl-video, tiny-llava-onevision, tiny-vila, a Hub "
        "id, or a folder.",
        metavar="MODEL",
    ),
]
ScorerOption = Annotated[
    str | None,
    typer.Option(
        help="How visual tokens are scored; attention by default, or mapper where one is named.",
        metavar="NAME",
        rich_help_panel=COMPRESSION_PANEL,
    ),
]
ScorerOptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer-option",
        help="An option of the scorer, such as seed=1 for random; may be repeated.",
        metavar="KEY=VALUE",
        rich_help_panel=COMPRESSION_PANEL,
    ),
]
MapperOption = Annotated[
    str | None,
    typer.Option(
        help="Trained mapper to score with: a Hub id or a folder.",
        metavar="MAPPER",
        rich_help_panel=COMPRESSION_PANEL,
    ),
]
VideoOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="A video: a file, an animated GIF, PNG or WebP, or a folder of frames; may be "
        "repeated. Videos follow pictures.",
        metavar="PATH",
    ),
]
FramesOption = Annotated[
    int, typer.Option(min=1, help="Most frames of each video, evenly spaced over it.")
]
ClipHoldOption = Annotated[
    int,
    typer.Option(min=1, help="Frames for which a clip shows each of its boards.", metavar="FRAMES"),
]
DEFAULT_FRAMES = 8
DtypeOption = Annotated[
    str,
    typer.Option(
        help="auto (the checkpoint's own, float32 for float16 on a CPU), float32, bfloat16 or "
        "float16. A CPU without bfloat16 arithmetic is several times faster in float32.",
        metavar="DTYPE",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="Such as cpu or cuda:0; by default the accelerator, if any.", metavar="DEVICE"
    ),
]


def parse_scorer_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of `--scorer-option`, as in `parse_key_values`."""
    return parse_key_values(pairs, "--scorer-option")


def parse_key_values(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """`["seed=1", "name=a"]` → `{"seed": 1, "name": "a"}`: JSON values, or else plain text.

    Args:
        pairs: What the user gave.
        option: Name of the command line option.

    Raises:
        CommandError: An entry has no `=`.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise CommandError(f"{option} takes KEY=VALUE, not {pair!r}.", exit_code=2)
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def listed(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["a,b", "c"]` → `("a", "b", "c")`."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(part for part in parts if part)
