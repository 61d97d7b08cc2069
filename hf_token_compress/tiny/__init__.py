"""Tiny trained models that come with the library, for demos and tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_HOME = Path(__file__).parent
_FOLDERS = {
    "llava-onevision": "llava_onevision",
    "qwen2-vl": "qwen2_vl",
    "qwen2-vl-video": "qwen2_vl_video",
    "vila": "vila",
}
_PREFIX = "tiny-"
_OWN = "grid"


def available_tiny_models() -> tuple[str, ...]:
    """Names that `load_tiny` takes, sorted."""
    return tuple(sorted(_FOLDERS))


def load_tiny(name: str, **model_options: Any) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a tiny trained model and its processor; nothing is downloaded.

    Args:
        name: "qwen2-vl", or one that takes short videos too: "qwen2-vl-video", "llava-onevision"
            or "vila". "tiny-" may stand before it, and underscores for hyphens.
        **model_options: Passed to `from_pretrained`, for instance `token_compression=…` or
            `dtype=…` (float32 by default).

    Returns:
        (model in evaluation mode, processor).

    Raises:
        ValueError: There is no tiny model of that name.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = _folder(name)
    model_options.setdefault("dtype", "float32")
    model = AutoModelForImageTextToText.from_pretrained(folder, **model_options)
    return model, AutoProcessor.from_pretrained(folder)


def resolve_model(model: str) -> str:
    """The folder of a tiny model such as "tiny-qwen2-vl"; ids and folders come back unchanged.

    Names are those of `load_tiny`.

    Raises:
        ValueError: The name starts with "tiny-", but is neither a tiny model nor a folder.
    """
    if Path(model).exists() or not (model.startswith(_PREFIX) or _short(model) in _FOLDERS):
        return model
    return str(_folder(model))


def own_mapper(model: str) -> str | None:
    """Name of the mapper that comes with a tiny model; None for other models."""
    name = f"{_PREFIX}{_short(model)}"
    return name if name in available_mappers() and not Path(model).exists() else None


def available_mappers() -> tuple[str, ...]:
    """Names of the mappers that come with the tiny models, sorted."""
    names = set()
    for name, folder in _FOLDERS.items():
        mappers = _HOME / folder / "mappers"
        # A folder holds one mapper, or one for images and one for videos.
        for config in (*mappers.glob("*/config.json"), *mappers.glob("*/*/config.json")):
            own = config.relative_to(mappers).parts[0]
            names.add(f"{_PREFIX}{name}" if own == _OWN else f"{_PREFIX}{name}/{own}")
    return tuple(sorted(names))


def resolve_mapper(mapper: str) -> str:
    """The folder of a tiny model's mapper; ids and folders come back unchanged.

    "tiny-qwen2-vl" is the mapper with this library's own network, "tiny-qwen2-vl/conv1d" the one
    with the paper's.

    Raises:
        ValueError: The name starts with "tiny-", but is neither such a mapper nor a folder.
    """
    if not mapper.startswith(_PREFIX) or Path(mapper).exists():
        return mapper
    if mapper not in available_mappers():
        raise ValueError(
            f"There is no mapper {mapper!r}: the library comes with "
            f"{', '.join(available_mappers())}."
        )
    name, _, network = mapper.removeprefix(_PREFIX).partition("/")
    return str(_folder(name) / "mappers" / (network or _OWN))


def _folder(name: str) -> Path:
    short = _short(name)
    if short not in _FOLDERS:
        raise ValueError(
            f"There is no tiny model {short!r}: choose one of {', '.join(available_tiny_models())}."
        )
    return _HOME / _FOLDERS[short]


def _short(name: str) -> str:
    """A name without its prefix, with the hyphens of `_FOLDERS`."""
    return name.removeprefix(_PREFIX).replace("_", "-")
