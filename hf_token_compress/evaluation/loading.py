"""Load a model by what users call it."""

from __future__ import annotations

from typing import Any

from ..tiny import resolve_model


def load_model(name: str, **model_options: Any) -> tuple[Any, Any]:
    """Load a model and its processor.

    Args:
        name: The name of a tiny model such as "tiny-qwen2-vl", a Hub id or a folder.
        **model_options: Passed to `from_pretrained`, for instance `dtype=…`.

    Returns:
        (model in evaluation mode, processor).

    Raises:
        OSError: There is no such model, or a file of it is missing.
        ValueError: There is no such tiny model, or an option does not fit.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    location = resolve_model(name)
    model = AutoModelForImageTextToText.from_pretrained(location, **model_options)
    return model.eval(), AutoProcessor.from_pretrained(location)
