"""Read `--model_args`: how to load the model, and which visual tokens it keeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...checks import refuse_unknown
from ...config import TokenCompressionConfig
from ...options import check_options, documented, option

DType = Literal["auto", "float32", "bfloat16", "float16"]


@documented
@dataclass(frozen=True)
class LoadingArguments:
    """How a model is loaded and fed.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range.
    """

    pretrained: str = option(
        "", 'Folder or Hub id of the model, or a tiny model such as "tiny-qwen2-vl".'
    )
    revision: str | None = option(None, "Branch, tag or commit of the model on the Hub.")
    dtype: DType = option("auto", 'Type of the weights. "auto" is the checkpoint\'s own.')
    device: str | None = option(
        None,
        'Such as "cpu" or "cuda:0". By default the accelerator if there is one. Not used with '
        "several processes, where every process has its own.",
    )
    device_map: str | None = option(
        None, 'Such as "auto", which spreads the model over all devices of one process.'
    )
    attn_implementation: str | None = option(
        None, 'Such as "sdpa" or "flash_attention_2". By default that of Transformers.'
    )
    batch_size: int = option(1, "Prompts per batch.", "[1, inf)")
    min_pixels: int | None = option(
        None, "Least pixels of an image, or of a frame. By default the processor's.", "[1, inf)"
    )
    max_pixels: int | None = option(
        None, "Most pixels of an image, or of a frame. By default the processor's.", "[1, inf)"
    )
    max_num_frames: int = option(
        32, "Most frames to take from each video. Some processors round the number.", "[1, inf)"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not self.pretrained:
            raise ValueError("model_args names no model: add pretrained=<folder or Hub id>.")


def read_arguments(given: Mapping[str, Any]) -> tuple[LoadingArguments, dict[str, Any]]:
    """The arguments of loading, and the settings of token compression that were given.

    Args:
        given: Values as lmms-eval reads them from `--model_args`, where dicts are JSON text; with
            `batch_size` and `device` of its command line, if they were given.

    Raises:
        TypeError, ValueError: A name is unknown, or a value does not fit its name.
    """
    own = {item.name for item in dataclasses.fields(LoadingArguments)}
    settings = {item.name for item in dataclasses.fields(TokenCompressionConfig)}
    refuse_unknown("model_args", "argument", given, own | settings)
    arguments = {name: value for name, value in given.items() if name in own}
    if isinstance(size := arguments.get("batch_size"), str):
        arguments["batch_size"] = _whole_number(size)
    changes = {name: value for name, value in given.items() if name in settings}
    if isinstance(options := changes.get("scorer_options"), str):
        changes["scorer_options"] = _json(options)
    return LoadingArguments(**arguments), changes


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"batch_size must be a whole number, but it is {text!r}: give one that fits in memory."
        ) from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(
            f'scorer_options must be a JSON object such as {{"seed": 1}}, but it is {text!r}.'
        ) from None
