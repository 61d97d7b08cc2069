"""Load the model and the processor that `--model_args` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig

from ...compression.mixin import CONFIG_KEY
from ...config import TokenCompressionConfig
from ...hub import explain_failure
from ...mapper import MapperNotFoundError
from ...scorers.registry import build_scorer
from ...tiny import resolve_model
from .arguments import LoadingArguments

# What Transformers calls them; both count pixels.
_EDGES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


def load(
    arguments: LoadingArguments, changes: Mapping[str, Any], device: torch.device
) -> tuple[Any, Any]:
    """The compressed model, in evaluation mode, and its processor.

    Args:
        arguments: How to load it.
        changes: Settings of token compression; they change those that were saved with the model.
        device: Where the model goes without a `device_map`.

    Raises:
        OSError: There is no such model, or the Hub cannot be reached.
        TypeError, ValueError: The settings do not fit each other or the model, there are none, or
            the processor does not take `min_pixels` or `max_pixels`.
    """
    location = resolve_model(arguments.pretrained)
    if Path(location).is_dir() and not (Path(location) / "config.json").is_file():
        raise OSError(f"{arguments.pretrained!r} is not a model's folder: it has no config.json.")
    # Only what was given, since not every model and processor takes all of it.
    source = {} if arguments.revision is None else {"revision": arguments.revision}
    placed = _given(arguments, "device_map", "attn_implementation")
    try:
        saved, _ = PreTrainedConfig.get_config_dict(location, **source)
        setting = _setting(saved.get(CONFIG_KEY), changes)
        # The processor first: it is small, and an argument that it refuses is found at once.
        processor = AutoProcessor.from_pretrained(location, **source)
        limit_pixels(processor, _given(arguments, *_EDGES))
        model: Any = AutoModelForImageTextToText.from_pretrained(
            location, token_compression=setting, dtype=arguments.dtype, **placed, **source
        )
    except MapperNotFoundError:
        raise
    except OSError as error:
        raise OSError(explain_failure("model", arguments.pretrained, error)) from error
    if arguments.device_map is None:
        model = model.to(device)
    return model.eval(), processor


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: There is none.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"There is no device {name!r}: choose for instance cpu or cuda:0."
        ) from None


def _given(arguments: LoadingArguments, *names: str) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _setting(saved: Any, changes: Mapping[str, Any]) -> TokenCompressionConfig:
    if saved is not None:
        setting = TokenCompressionConfig.coerce(saved).changed(changes)
    elif changes:
        setting = TokenCompressionConfig.from_dict(changes)
    else:
        raise ValueError(
            "The model was saved without token_compression, and model_args names no setting of it: "
            "add for instance retention_ratio=0.25, or retention_ratio=1.0 for all visual tokens."
        )
    if setting.scorer_name != "mapper":
        build_scorer(setting.scorer_name, setting.scorer_options)
    return setting


def limit_pixels(processor: Any, limits: Mapping[str, int]) -> None:
    """Set `min_pixels` and `max_pixels` of images, and of frames where the processor counts those.

    Video processors that limit the pixels of a whole video, such as Qwen3-VL's, are left alone.

    Raises:
        ValueError: The image processor does not take one of them.
    """
    images, videos = processor.image_processor, getattr(processor, "video_processor", None)
    for name, value in limits.items():
        if name not in images.valid_kwargs.__annotations__:
            raise ValueError(
                f"{name} is not an option of this model's {type(images).__name__}: leave it out."
            )
        images.size = replace(images.size, **{_EDGES[name]: value})
        if videos is not None and name in videos.valid_kwargs.__annotations__:
            videos.size = replace(videos.size, **{_EDGES[name]: value})
