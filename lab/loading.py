"""Load a model by what the commands call it."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_token_compress.tiny import resolve_model


def load_model(name: str, **model_options: Any) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its processor.

    Args:
        name: The name of a tiny model such as "tiny-qwen2-vl", a Hub id or a folder.
        **model_options: Passed to `from_pretrained`, for instance `dtype=…`.
    """
    location = resolve_model(name)
    model = AutoModelForImageTextToText.from_pretrained(location, **model_options)
    return model.eval(), AutoProcessor.from_pretrained(location)
