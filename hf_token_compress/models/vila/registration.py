"""Register VILA1.5 with the Auto classes of Transformers.

This happens as soon as the Auto classes are imported. Transformers is then still being imported
itself, so the registered entries import the real classes only when they are used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from wrapt import register_post_import_hook

from .names import MODEL_TYPE, ORIGINAL_MODEL_TYPE


class ConfigEntry:
    """The entry of `AutoConfig` for both model types; it makes a `VilaConfig`."""

    model_type = MODEL_TYPE

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a `VilaConfig`."""
        return _config_class()(*args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See `VilaConfig.from_dict`."""
        return _config_class().from_dict(config_dict, **kwargs)


class ProcessorEntry:
    """The entry of `AutoProcessor`; it loads a `VilaProcessor`."""

    @classmethod
    def from_pretrained(cls, location: Any, **kwargs: Any) -> Any:
        """See `VilaProcessor.from_pretrained`."""
        from .processing import VilaProcessor

        return VilaProcessor.from_pretrained(location, **kwargs)


# The Auto classes also look up entries by these names.
ConfigEntry.__name__ = "VilaConfig"
ProcessorEntry.__name__ = "VilaProcessor"


def register_configuration(configuration_auto: Any) -> None:
    """Run once `transformers.models.auto.configuration_auto` is imported."""
    for model_type in (MODEL_TYPE, ORIGINAL_MODEL_TYPE):
        configuration_auto.CONFIG_MAPPING.register(model_type, ConfigEntry, exist_ok=True)


def register_processor(processing_auto: Any) -> None:
    """Run once `transformers.models.auto.processing_auto` is imported."""
    processing_auto.AutoProcessor.register(ConfigEntry, ProcessorEntry, exist_ok=True)


@cache
def register_models() -> None:
    """Register the model and processor classes under their configuration.

    Auto classes look both up by a configuration, so it is enough to run this before one exists.
    """
    from transformers import AutoModel, AutoModelForImageTextToText

    from .configuration import VilaConfig
    from .modeling import VilaForConditionalGeneration, VilaModel

    AutoModel.register(VilaConfig, VilaModel, exist_ok=True)
    AutoModelForImageTextToText.register(VilaConfig, VilaForConditionalGeneration, exist_ok=True)
    register_post_import_hook(
        lambda module: module.AutoProcessor.register(VilaConfig, ProcessorEntry, exist_ok=True),
        "transformers.models.auto.processing_auto",
    )


def _config_class() -> Any:
    from .configuration import VilaConfig

    register_models()
    return VilaConfig
