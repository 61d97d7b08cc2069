"""Load a model by the name that the library's commands take."""

from __future__ import annotations

from typing import Any

from hf_token_compress.tiny import resolve_model


def load_model(name: str, **model_options: Any) -> tuple[Any, Any]:
    """Load a model and its processor.

    Args:
        name: Name of a tiny model such as "tiny-qwen2-vl", Hub id, or folder.
        **model_options: Passed to `from_pretrained`, for instance `dtype=…`.

    Returns:
        (model in evaluation mode, processor).

    Raises:
        OSError: There is no such model.
        ValueError: There is no such tiny model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    location = resolve_model(name)
    model = AutoModelForImageTextToText.from_pretrained(location, **model_options)
    return model.eval(), AutoProcessor.from_pretrained(location)
